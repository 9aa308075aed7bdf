"""What several router processes give, by the number of connections."""
