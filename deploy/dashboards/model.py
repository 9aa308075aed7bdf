"""One model in depth: its calls, speed, permits, replicas and attempts."""

from __future__ import annotations

from deploy.dashboards.panels import Variable, board, lines, mean, quantile, rate
from deploy.dashboards.replicas import FIRST, OF, failing

_ANSWERS = 'gen_ai_response_model=~"$model"'
_MODEL = 'model=~"$model"'
_DEPLOYMENT = 'deployment=~"$model"'
_REPLICA = "{{deployment}} {{replica}}"
_FIRST = "gen_ai_server_time_to_first_token_seconds"
_TOKEN = "gen_ai_server_time_per_output_token_seconds"  # noqa: S105 - the name of a metric
_WHOLE = "gen_ai_server_request_duration_seconds"

MODEL = board(
    "model",
    "One model",
    "One model in depth: its calls, speed, permits, replicas and attempts.",
    [
        (
            "Calls",
            [
                lines(
                    "Outcomes",
                    "Calls that end, a second, by outcome.",
                    "reqps",
                    (rate("polyroute_requests_total", "outcome", _MODEL), "{{outcome}}"),
                    stacked=True,
                ),
                lines(
                    "Asked for as",
                    "Calls by the name that they asked for and the variant that they fell to.",
                    "reqps",
                    (rate("polyroute_requests_total", "route, variant", _MODEL), "{{route}} {{variant}}"),
                    stacked=True,
                ),
                lines(
                    "Tokens",
                    "Tokens read and written, a second, and prompt tokens that were not computed again.",
                    "short",
                    (rate("gen_ai_client_token_usage_sum", "gen_ai_token_type", _ANSWERS), "{{gen_ai_token_type}}"),
                    (f"sum(rate(polyroute_prompt_tokens_reused_total{{{_MODEL}}}[$__rate_interval]))", "reused"),
                ),
            ],
        ),
        (
            "Speed",
            [
                lines(
                    "Time to first token",
                    "From arrival to the answer's beginning, the wait in the queue included.",
                    "s",
                    (quantile(0.5, _FIRST, "", _ANSWERS), "p50"),
                    (quantile(0.99, _FIRST, "", _ANSWERS), "p99"),
                ),
                lines(
                    "Time per token",
                    "Between the tokens of an answer, after the first.",
                    "s",
                    (quantile(0.5, _TOKEN, "", _ANSWERS), "p50"),
                    (quantile(0.99, _TOKEN, "", _ANSWERS), "p99"),
                ),
                lines(
                    "Whole calls",
                    "From arrival to the end, by what the cache did.",
                    "s",
                    (mean(_WHOLE, "cache", _ANSWERS), "mean, {{cache}}"),
                    (quantile(0.99, _WHOLE, "cache", _ANSWERS), "p99, {{cache}}"),
                ),
            ],
        ),
        (
            "Permits and queue",
            [
                lines(
                    "Permits",
                    "Calls that hold one, and how many there are.",
                    "short",
                    (f"sum by (deployment) (polyroute_permits_in_use{{{_DEPLOYMENT}}})", "{{deployment}} in use"),
                    (f"sum by (deployment) (polyroute_permits_limit{{{_DEPLOYMENT}}})", "{{deployment}} limit"),
                ),
                lines(
                    "Waiting",
                    "Time that calls waited for the permit they got.",
                    "s",
                    (quantile(0.5, "polyroute_queue_seconds", "deployment", _DEPLOYMENT), "{{deployment}} p50"),
                    (quantile(0.99, "polyroute_queue_seconds", "deployment", _DEPLOYMENT), "{{deployment}} p99"),
                ),
                lines(
                    "No permit",
                    "Calls that got none, a second, by why.",
                    "reqps",
                    (
                        rate("polyroute_refusals_total", "deployment, refusal", _DEPLOYMENT),
                        "{{deployment}} {{refusal}}",
                    ),
                ),
            ],
        ),
        (
            "Replicas",
            [
                lines(
                    "Attempts by replica",
                    "Attempts that end, a second, by outcome; `CANCELLED` are also those that another was faster than.",
                    "reqps",
                    (
                        rate("polyroute_replica_attempts_total", f"{OF}, outcome", _DEPLOYMENT),
                        f"{_REPLICA} {{{{outcome}}}}",
                    ),
                    stacked=True,
                ),
                lines(
                    "Attempts that failed, by replica",
                    "Share of a replica's attempts that failed by its own fault.",
                    "percentunit",
                    (failing(_DEPLOYMENT), _REPLICA),
                ),
                lines(
                    "Time to first token by replica",
                    "From asking a replica to the beginning of its answer.",
                    "s",
                    (quantile(0.5, FIRST, OF, _DEPLOYMENT), f"{_REPLICA} p50"),
                    (quantile(0.99, FIRST, OF, _DEPLOYMENT), f"{_REPLICA} p99"),
                ),
                lines(
                    "Time of an attempt by replica",
                    "Mean, from asking a replica until its answer is over, failures included.",
                    "s",
                    (
                        f"{rate('polyroute_replica_attempt_seconds_total', OF, _DEPLOYMENT)}"
                        f" / {rate('polyroute_replica_attempts_total', OF, _DEPLOYMENT)}",
                        _REPLICA,
                    ),
                ),
                lines(
                    "In flight by replica",
                    "Calls from their choice of a replica until their stream is closed.",
                    "short",
                    (f"sum by ({OF}) (polyroute_replica_in_flight{{{_DEPLOYMENT}}})", _REPLICA),
                ),
                lines(
                    "Breakers that are not closed",
                    "1 while a replica is left out (open) or tried with few calls (half_open).",
                    "short",
                    (
                        f'max by ({OF}, state) (polyroute_replica_breaker{{{_DEPLOYMENT}, state!="closed"}})',
                        f"{_REPLICA} {{{{state}}}}",
                    ),
                ),
                lines(
                    "Ejections",
                    "How often breakers have opened in the last 15 minutes.",
                    "short",
                    (f"sum by ({OF}) (increase(polyroute_replica_ejections_total{{{_DEPLOYMENT}}}[15m]))", _REPLICA),
                ),
            ],
        ),
        (
            "Attempts",
            [
                lines(
                    "Attempts that failed",
                    "A second, by reason; calls may have been answered by another attempt.",
                    "reqps",
                    (
                        rate("polyroute_attempts_total", "deployment, outcome", f'{_DEPLOYMENT}, outcome!="ok"'),
                        "{{deployment}} {{outcome}}",
                    ),
                ),
                lines(
                    "Retries",
                    "Attempts after a failed one, a second; `no_budget` are those that were not made.",
                    "reqps",
                    (rate("polyroute_retries_total", "outcome", _DEPLOYMENT), "{{outcome}}"),
                ),
                lines(
                    "Hedges",
                    "Second attempts beside a slow one, a second.",
                    "reqps",
                    (rate("polyroute_hedges_total", "outcome", _DEPLOYMENT), "{{outcome}}"),
                ),
            ],
        ),
    ],
    [Variable("model", "polyroute_permits_limit", "deployment")],
)
