"""Where calls go: variants, fallbacks, retries and what experiments record."""

from __future__ import annotations

from deploy.dashboards.panels import Variable, board, lines, mean, quantile, rate

_ROUTE = 'route=~"$route"'
_SPLIT = f'{_ROUTE}, variant!=""'
_ASKED = 'gen_ai_request_model=~"$route"'
_BY = "gen_ai_request_model, gen_ai_response_model"
_ARM = "{{gen_ai_request_model}}: {{gen_ai_response_model}}"

ROUTES = board(
    "routes",
    "Routing and experiments",
    "Where calls go: variants, fallbacks, retries and what experiments record.",
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
                    "Experiment records",
                    "Records of calls that take part in an experiment, a second, by what came of them.",
                    "reqps",
                    (rate("polyroute_experiment_records_total", "result"), "{{result}}"),
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
