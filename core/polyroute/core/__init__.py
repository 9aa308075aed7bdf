"""The words that every room speaks: calls, events, errors, configuration and telemetry names."""
