"""The first page: is anything slow, failing, queueing or wasting, and where."""

from __future__ import annotations

from deploy.dashboards.panels import board, lines, number, quantile, rate
from deploy.dashboards.replicas import FIRST, OF, failing
from deploy.faults import faults

_FIRST = "gen_ai_server_time_to_first_token_seconds"
_FAULTS = f'outcome=~"{faults()}"'

OVERVIEW = board(
    "overview",
    "Overview",
    "Is anything slow, failing, queueing or wasting, and where.",
    [
        (
            "Now",
            [
                number("Up", "Servers that Prometheus reaches.", "short", 'sum(up{job="polyroute"})'),
                number("Calls", "Calls that end, a second.", "reqps", "sum(rate(polyroute_requests_total[1m]))"),
                number("In flight", "Calls being answered.", "short", "sum(polyroute_requests_in_flight)"),
                number("Waiting", "Calls waiting for a permit.", "short", "sum(polyroute_queued)"),
                number(
                    "Without fault",
                    "Share of calls that did not fail for a fault of ours, of a model or of a peer.",
                    "percentunit",
                    f"1 - (sum(rate(polyroute_requests_total{{{_FAULTS}}}[5m])) or vector(0))"
                    " / sum(rate(polyroute_requests_total[5m]))",
                ),
                number(
                    "Saved by the cache",
                    "Share of calls that a stored answer, or another caller's, answered.",
                    "percentunit",
                    'sum(rate(polyroute_requests_total{cache=~"hit|coalesced"}[5m]))'
                    " / sum(rate(polyroute_requests_total[5m]))",
                ),
            ],
        ),
        (
            "Calls",
            [
                lines(
                    "Calls by model",
                    "Calls that end, a second, by the model that answered.",
                    "reqps",
                    (rate("polyroute_requests_total", "model"), "{{model}}"),
                    stacked=True,
                ),
                lines(
                    "Failures by model and reason",
                    "Calls that did not end well, a second; what callers gave up or got wrong too.",
                    "reqps",
                    (rate("polyroute_requests_total", "model, outcome", 'outcome!="ok"'), "{{model}} {{outcome}}"),
                ),
                lines(
                    "Rejected where they came in",
                    "Calls refused before any model was asked, a second.",
                    "reqps",
                    (rate("polyroute_rejected_total", "face, reason"), "{{face}} {{reason}}"),
                ),
            ],
        ),
        (
            "Speed",
            [
                lines(
                    "Time to first token, p99",
                    "From arrival to the answer's beginning; answers of models alone.",
                    "s",
                    (quantile(0.99, _FIRST, "gen_ai_response_model"), "{{gen_ai_response_model}}"),
                ),
                lines(
                    "Whole answers, p99",
                    "From arrival to the end, cached ones included.",
                    "s",
                    (
                        quantile(
                            0.99, "gen_ai_server_request_duration_seconds", "gen_ai_response_model", 'error_type=""'
                        ),
                        "{{gen_ai_response_model}}",
                    ),
                ),
                lines(
                    "What the router adds",
                    "Total time less that of the model, the queue and a slow reader.",
                    "s",
                    (quantile(0.5, "polyroute_router_overhead_seconds", ""), "p50"),
                    (quantile(0.99, "polyroute_router_overhead_seconds", ""), "p99"),
                ),
            ],
        ),
        (
            "Replicas",
            [
                lines(
                    "Failing most",
                    "The ten replicas with the highest share of attempts that fail by their own fault.",
                    "percentunit",
                    (f"topk(10, {failing()})", "{{deployment}} {{replica}}"),
                    span=12,
                ),
                lines(
                    "Slowest to begin",
                    "The ten replicas with the longest time to first token, p95.",
                    "s",
                    (f"topk(10, {quantile(0.95, FIRST, OF)})", "{{deployment}} {{replica}}"),
                    span=12,
                ),
            ],
        ),
        (
            "Room",
            [
                lines(
                    "Permits in use",
                    "Share of each model's permits that calls hold; at 100 % the next ones wait.",
                    "percentunit",
                    (
                        "sum by (deployment) (polyroute_permits_in_use)"
                        " / sum by (deployment) (polyroute_permits_limit)",
                        "{{deployment}}",
                    ),
                ),
                lines(
                    "Queues",
                    "Calls waiting for a permit.",
                    "short",
                    ("sum by (deployment) (polyroute_queued)", "{{deployment}}"),
                    stacked=True,
                ),
                lines(
                    "Tokens",
                    "Tokens read and written, a second.",
                    "short",
                    (rate("gen_ai_client_token_usage_sum", "gen_ai_token_type"), "{{gen_ai_token_type}}"),
                ),
            ],
        ),
    ],
)
