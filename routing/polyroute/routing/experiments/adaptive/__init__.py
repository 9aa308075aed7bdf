"""Routes whose shares follow what is learnt of their variants."""
