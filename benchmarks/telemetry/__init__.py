"""What metrics, log lines and traces cost a call."""
