"""What the answer cache saves, and whether it is well."""

from __future__ import annotations

from deploy.dashboards.panels import board, lines, mean, quantile, rate

_WHOLE = "gen_ai_server_request_duration_seconds"

CACHE = board(
    "cache",
    "Cache",
    "What the answer cache saves, and whether it is well.",
    [
        (
            "Use",
            [
                lines(
                    "Calls by what the cache did",
                    "A second: `hit`, `miss`, `coalesced` with an equal call in flight, or `bypass`.",
                    "reqps",
                    (rate("polyroute_requests_total", "cache", 'outcome="ok"'), "{{cache}}"),
                    stacked=True,
                ),
                lines(
                    "Hits by model",
                    "Share of a model's answers that were stored ones.",
                    "percentunit",
                    (
                        'sum by (model) (rate(polyroute_requests_total{cache=~"hit|coalesced"}[5m]))'
                        ' / sum by (model) (rate(polyroute_requests_total{outcome="ok"}[5m]))',
                        "{{model}}",
                    ),
                ),
                lines(
                    "Tokens not generated",
                    "Tokens of answers that came out of the cache, a second.",
                    "short",
                    (
                        rate(
                            "gen_ai_client_token_usage_sum",
                            "gen_ai_response_model",
                            'cache=~"hit|coalesced", gen_ai_token_type="output"',
                        ),
                        "{{gen_ai_response_model}}",
                    ),
                    stacked=True,
                ),
            ],
        ),
        (
            "Health",
            [
                lines(
                    "Lookups by result",
                    "A second; an `error` is answered as a miss.",
                    "reqps",
                    (rate("polyroute_cache_lookups_total", "result"), "{{result}}"),
                ),
                lines(
                    "Answers stored or refused",
                    "A second; refused ones were too large, or the store was full or ill.",
                    "reqps",
                    (rate("polyroute_cache_stores_total", "result"), "{{result}}"),
                ),
                lines(
                    "Lookups by tier",
                    "A second, nearest tier first; those that one has not got, the next one is asked for.",
                    "reqps",
                    (rate("polyroute_cache_tier_lookups_total", "tier, result"), "{{tier}} {{result}}"),
                ),
                lines(
                    "Tiers in use",
                    "1 while a tier is asked or written to, 0 while it is left out after failures.",
                    "short",
                    ("min by (tier, operation) (polyroute_cache_tier_used)", "{{tier}} {{operation}}"),
                ),
                lines(
                    "Memory",
                    "Size of the answers that are kept in memory, and what they may take.",
                    "bytes",
                    ("sum by (tier) (polyroute_cache_tier_bytes)", "held"),
                    ("sum by (tier) (polyroute_cache_tier_limit_bytes)", "limit"),
                ),
                lines(
                    "Answers in the making",
                    "Those that equal calls share, or would share.",
                    "short",
                    ("sum by (model) (polyroute_cache_runs)", "{{model}}"),
                    stacked=True,
                ),
                lines(
                    "Time of a call, cached or not",
                    "From arrival to the end.",
                    "s",
                    (mean(_WHOLE, "cache", 'error_type=""'), "mean, {{cache}}"),
                    (quantile(0.99, _WHOLE, "cache", 'error_type=""'), "p99, {{cache}}"),
                ),
            ],
        ),
    ],
)
