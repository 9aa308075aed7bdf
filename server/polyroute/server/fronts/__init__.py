"""Several router processes behind one pair of ports (`--workers`): the fronts, and the home that they share."""
