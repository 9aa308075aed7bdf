"""Models that this server runs itself, each in a worker process; nothing outside `local.worker` imports torch."""
