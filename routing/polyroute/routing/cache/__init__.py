"""The answer cache: what an answer is stored under, when it may be, and where."""
