"""Several replicas of one model as one backend."""

from polyroute.backends.pool.attempts import Surroundings
from polyroute.backends.pool.pool import Pool, Source

__all__ = ["Pool", "Source", "Surroundings"]
