"""REST on the HTTP address: the legacy shapes, OpenAI's, and the plain pages beside them."""
