"""The console in a real browser, against a real server, as a person would use it."""
