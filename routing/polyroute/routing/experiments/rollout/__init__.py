"""Rollouts: from one version to the next in steps, on evidence that stays valid however often one looks."""
