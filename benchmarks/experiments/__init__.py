"""Simulates experiments and rollouts on the code that serves them, on a virtual clock."""
