"""Replicas of one model as one backend."""

from polyroute.backends.pool.pool import Balance, Pool

__all__ = ["Balance", "Pool"]
