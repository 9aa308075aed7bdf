"""Experiments on routes: who takes part, what is kept of it, and what it shows."""
