"""One engine a module, each run in a process of its own: `python -m benchmarks.engine.runners.NAME OPTIONS`."""
