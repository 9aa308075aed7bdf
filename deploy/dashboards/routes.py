"""Where calls go: variants, rollouts, shadows, fallbacks and retries."""

from __future__ import annotations

from deploy.dashboards.panels import Variable, board, lines, mean, quantile, rate

_ROUTE = 'route=~"$route"'
_SPLIT = f'{_ROUTE}, variant!=""'
_ASKED = 'gen_ai_request_model=~"$route"'
_BY = "gen_ai_request_model, gen_ai_response_model"
_SHADOW = "route, deployment"
_COPY = "{{route}}: {{deployment}}"
_DISTANCE = "polyroute_shadow_edit_distance"
_EQUAL = 'le="0.0"'
_ARM = "{{gen_ai_request_model}}: {{gen_ai_response_model}}"

ROUTES = board(
    "routes",
    "Routing and experiments",
    "Where calls go: variants, rollouts, shadows, fallbacks and retries.",
    [
        (
            "Variants",
            [
                lines(
                    "Share of each variant",
                    "Of the calls to a route, those that fell to each variant.",
                    "percentunit",
                    (
                        f"sum by (route, variant) (rate(polyroute_requests_total{{{_SPLIT}}}[5m]))"
                        f" / on (route) group_left sum by (route) (rate(polyroute_requests_total{{{_SPLIT}}}[5m]))",
                        "{{route}}: {{variant}}",
                    ),
                ),
                lines(
                    "Calls by variant",
                    "Calls that end, a second.",
                    "reqps",
                    (rate("polyroute_requests_total", "route, variant", _ROUTE), "{{route}}: {{variant}}"),
                    stacked=True,
                ),
                lines(
                    "Answered by variant",
                    "Share of a variant's calls that ended well.",
                    "percentunit",
                    (
                        f'sum by (route, variant) (rate(polyroute_requests_total{{{_ROUTE}, outcome="ok"}}[5m]))'
                        f" / sum by (route, variant) (rate(polyroute_requests_total{{{_ROUTE}}}[5m]))",
                        "{{route}}: {{variant}}",
                    ),
                ),
                lines(
                    "First token, p99, by variant's model",
                    "Of the answers to a route's calls.",
                    "s",
                    (quantile(0.99, "gen_ai_server_time_to_first_token_seconds", _BY, _ASKED), _ARM),
                ),
                lines(
                    "Length of answers by variant's model",
                    "Mean number of tokens.",
                    "short",
                    (mean("gen_ai_client_token_usage", _BY, f'{_ASKED}, gen_ai_token_type="output"'), _ARM),
                ),
                lines(
                    "Share that each variant is to have",
                    "As it is now; rollouts and adaptive routes move it.",
                    "percentunit",
                    (f"max by (route, variant) (polyroute_variant_share{{{_ROUTE}}})", "{{route}}: {{variant}}"),
                ),
            ],
        ),
        (
            "Rollouts",
            [
                lines(
                    "State",
                    "1 for the state that each rollout is in.",
                    "short",
                    (f"max by (route, state) (polyroute_rollout_state{{{_ROUTE}}}) == 1", "{{route}}: {{state}}"),
                ),
                lines(
                    "Share of the new version",
                    "Of the traffic of both versions.",
                    "percentunit",
                    (f"max by (route) (polyroute_rollout_weight{{{_ROUTE}}})", "{{route}}"),
                ),
                lines(
                    "Moves in the last hour",
                    "To another step or state, by the state afterwards; each router counts what it sees.",
                    "short",
                    (
                        f"max by (route, state) (increase(polyroute_rollout_moves_total{{{_ROUTE}}}[1h]))",
                        "{{route}}: {{state}}",
                    ),
                ),
            ],
        ),
        (
            "Shadows and records",
            [
                lines(
                    "Copies by result",
                    "Copies for shadows that are over, or were not made, a second.",
                    "reqps",
                    (rate("polyroute_shadow_copies_total", f"{_SHADOW}, result", _ROUTE), f"{_COPY} {{{{result}}}}"),
                    stacked=True,
                ),
                lines(
                    "Equal answers",
                    "Share of the compared copies that said the same, token by token.",
                    "percentunit",
                    (
                        f"{rate(f'{_DISTANCE}_bucket', _SHADOW, f'{_ROUTE}, {_EQUAL}')}"
                        f" / {rate(f'{_DISTANCE}_count', _SHADOW, _ROUTE)}",
                        _COPY,
                    ),
                ),
                lines(
                    "Distance of answers",
                    "Share of the tokens that differ, where copies were compared.",
                    "percentunit",
                    (mean(_DISTANCE, _SHADOW, _ROUTE), f"{_COPY} mean"),
                    (quantile(0.95, _DISTANCE, _SHADOW, _ROUTE), f"{_COPY} p95"),
                ),
                lines(
                    "Experiment records",
                    "Records of calls that take part in an experiment, a second, by what came of them.",
                    "reqps",
                    (rate("polyroute_experiment_records_total", "result"), "{{result}}"),
                    span=12,
                ),
                lines(
                    "Records that wait",
                    "To be written to the state database; those that find too many there are dropped.",
                    "short",
                    ("sum(polyroute_experiment_records_waiting)", "waiting"),
                    span=12,
                ),
            ],
        ),
        (
            "Attempts",
            [
                lines(
                    "Fallbacks by cause",
                    "Calls that went on to another deployment, a second, by the one that failed them.",
                    "reqps",
                    (rate("polyroute_fallbacks_total", "deployment, cause"), "{{deployment}} {{cause}}"),
                    span=6,
                ),
                lines(
                    "Attempts a call",
                    "Attempts made for each call that the cache did not answer; above 1 is repeated work.",
                    "short",
                    (
                        "sum(rate(polyroute_attempts_total[$__rate_interval]))"
                        ' / sum(rate(polyroute_requests_total{cache=~"miss|bypass|unspecified"}[$__rate_interval]))',
                        "attempts",
                    ),
                    span=6,
                ),
                lines(
                    "Retries by outcome",
                    "A second; `no_budget` says that the retry budget was used up.",
                    "reqps",
                    (rate("polyroute_retries_total", "deployment, outcome"), "{{deployment}} {{outcome}}"),
                    span=6,
                ),
                lines(
                    "Hedges by outcome",
                    "A second; those that lost were work for nothing.",
                    "reqps",
                    (rate("polyroute_hedges_total", "deployment, outcome"), "{{deployment}} {{outcome}}"),
                    span=6,
                ),
            ],
        ),
    ],
    [Variable("route", "polyroute_requests_total", "route")],
)
