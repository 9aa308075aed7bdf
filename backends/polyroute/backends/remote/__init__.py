"""Models that a peer runs, reached over HTTP."""
