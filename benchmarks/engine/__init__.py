"""The local engine beside other engines on this machine: see `python -m benchmarks.engine --help`."""
