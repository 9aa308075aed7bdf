"""What runs inside the worker process: loading, prompts, the engine and its text. Run as `python -m`."""
