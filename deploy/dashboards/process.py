"""The router's own process: its event loop, memory, configuration and version."""

from __future__ import annotations

from deploy.dashboards.panels import board, lines, quantile, rate

_JOB = 'job="polyroute"'

PROCESS = board(
    "process",
    "Process",
    "The router's own process: its event loop, memory, configuration and version.",
    [
        (
            "Process",
            [
                lines(
                    "How late the event loop is",
                    "Every call waits that long at each of its turns.",
                    "s",
                    (quantile(0.5, "polyroute_event_loop_lag_seconds", "instance"), "{{instance}} p50"),
                    (quantile(0.99, "polyroute_event_loop_lag_seconds", "instance"), "{{instance}} p99"),
                ),
                lines(
                    "Processors",
                    "Processors' time that the router takes, workers left out; its event loop has one.",
                    "short",
                    (rate("process_cpu_seconds_total", "instance", _JOB), "{{instance}}"),
                ),
                lines(
                    "Memory",
                    "Resident memory of the router, workers left out.",
                    "bytes",
                    (f"process_resident_memory_bytes{{{_JOB}}}", "{{instance}}"),
                ),
                lines(
                    "Open files",
                    "Sockets included; the limit is the system's.",
                    "short",
                    (f"process_open_fds{{{_JOB}}}", "{{instance}} open"),
                    (f"process_max_fds{{{_JOB}}}", "{{instance}} limit"),
                ),
                lines(
                    "Garbage collections",
                    "A second, by generation.",
                    "short",
                    (rate("python_gc_collections_total", "instance, generation", _JOB), "{{instance}} {{generation}}"),
                ),
                lines(
                    "What a scrape costs",
                    "Time that /metrics took.",
                    "s",
                    (f"scrape_duration_seconds{{{_JOB}}}", "{{instance}}"),
                ),
            ],
        ),
        (
            "Configuration",
            [
                lines(
                    "Configurations in force",
                    "Servers by the digest of theirs; more than one line is a fleet that does not agree.",
                    "short",
                    ("count by (hash) (polyroute_config_info)", "{{hash}}"),
                ),
                lines(
                    "Reloads in the last hour",
                    "By result; after `rejected` or `failed` the configuration before stays in force.",
                    "short",
                    ("sum by (result) (increase(polyroute_config_reloads_total[1h]))", "{{result}}"),
                ),
                lines(
                    "Age of the configuration",
                    "Time since the last one that could be used was read.",
                    "s",
                    ("time() - polyroute_config_last_success_timestamp_seconds", "{{instance}}"),
                ),
                lines(
                    "Versions that run",
                    "Servers by version of Polyroute.",
                    "short",
                    ("count by (version) (polyroute_build_info)", "{{version}}"),
                ),
                lines(
                    "Samples of a scrape",
                    "Grows with models, replicas and what happens to them, never with callers.",
                    "short",
                    (f"scrape_samples_scraped{{{_JOB}}}", "{{instance}}"),
                ),
            ],
        ),
    ],
)
