"""What many models and routes cost the router: see `python -m benchmarks.registry --help`."""
