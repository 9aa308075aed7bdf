"""Measures how smoothly the console shows a long answer as it comes, in a real browser."""
