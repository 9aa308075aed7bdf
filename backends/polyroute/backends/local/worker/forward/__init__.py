"""One forward pass of the model for everything that a step advances, and the memory of keys and values behind it."""
