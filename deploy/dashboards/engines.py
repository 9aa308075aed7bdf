"""The engines of local models: what they work on, how fast, and in how much memory."""

from __future__ import annotations

from deploy.dashboards.panels import Variable, board, lines, mean, quantile, rate

_MODEL = 'model=~"$model"'
_EACH = "{{replica}}"

ENGINES = board(
    "engines",
    "Local engines",
    "The engines of local models: what they work on, how fast, and in how much memory.",
    [
        (
            "Work",
            [
                lines(
                    "Answers in the making",
                    "Running, waiting for a place or memory, or paused by a slow reader.",
                    "short",
                    (f"sum by (replica, state) (polyroute_engine_sequences{{{_MODEL}}})", "{{replica}} {{state}}"),
                ),
                lines(
                    "Tokens generated",
                    "A second.",
                    "short",
                    (rate("polyroute_engine_output_tokens_total", "replica", _MODEL), _EACH),
                    stacked=True,
                ),
                lines(
                    "Prompt tokens",
                    "A second: computed, or found as the prefix of an earlier prompt.",
                    "short",
                    (rate("polyroute_engine_prompt_tokens_total", "replica, source", _MODEL), "{{replica}} {{source}}"),
                    stacked=True,
                ),
                lines(
                    "Step time",
                    "Each step gives every running answer a token.",
                    "s",
                    (mean("polyroute_engine_step_seconds", "replica", _MODEL), "{{replica}} mean"),
                    (quantile(0.99, "polyroute_engine_step_seconds", "replica", _MODEL), "{{replica}} p99"),
                ),
                lines(
                    "Answers in a step",
                    "Mean number that took part: the more, the better the weights are used.",
                    "short",
                    (mean("polyroute_engine_batch_sequences", "replica", _MODEL), _EACH),
                ),
                lines(
                    "Busy",
                    "Share of the time that the engine spends in steps.",
                    "percentunit",
                    (rate("polyroute_engine_step_seconds_sum", "replica", _MODEL), _EACH),
                ),
            ],
        ),
        (
            "Memory",
            [
                lines(
                    "Keys and values",
                    "Share of their memory that is taken, kept prefixes included, which leave when room is needed.",
                    "percentunit",
                    (
                        f"sum by (replica) (polyroute_engine_kv_used_bytes{{{_MODEL}}})"
                        f" / sum by (replica) (polyroute_engine_kv_limit_bytes{{{_MODEL}}})",
                        _EACH,
                    ),
                ),
                lines(
                    "Preemptions",
                    "Answers that had to give back their memory, to be computed anew, a second.",
                    "short",
                    (rate("polyroute_engine_preemptions_total", "replica", _MODEL), _EACH),
                ),
                lines(
                    "Memory of local models",
                    "Held or about to be taken, and the budget.",
                    "bytes",
                    ("sum by (device) (polyroute_memory_held_bytes)", "{{device}} held"),
                    ("sum by (device) (polyroute_memory_budget_bytes)", "{{device}} budget"),
                ),
            ],
        ),
        (
            "Pools",
            [
                lines(
                    "Replicas by state",
                    "Workers of each local model.",
                    "short",
                    (f"sum by (model, state) (polyroute_replicas{{{_MODEL}}})", "{{model}} {{state}}"),
                    stacked=True,
                ),
                lines(
                    "Time to load",
                    "Mean time from the decision to load a replica until it was warm, since the server started.",
                    "s",
                    (
                        f"sum by (model) (polyroute_model_load_seconds_sum{{{_MODEL}}})"
                        f" / sum by (model) (polyroute_model_load_seconds_count{{{_MODEL}}})",
                        "{{model}}",
                    ),
                ),
                lines(
                    "Loads, evictions and deaths",
                    "In the last hour: loads by outcome, idle replicas that left for another model's sake, and worker "
                    "processes that died.",
                    "short",
                    (
                        f"sum by (model, outcome) (increase(polyroute_model_loads_total{{{_MODEL}}}[1h]))",
                        "{{model}} load {{outcome}}",
                    ),
                    (
                        f"sum by (model) (increase(polyroute_model_evictions_total{{{_MODEL}}}[1h]))",
                        "{{model}} evicted",
                    ),
                    (f"sum by (model) (increase(polyroute_worker_restarts_total{{{_MODEL}}}[1h]))", "{{model}} died"),
                ),
            ],
        ),
    ],
    [Variable("model", "polyroute_engine_kv_limit_bytes", "model")],
)
