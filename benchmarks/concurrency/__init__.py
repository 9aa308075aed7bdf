"""Which limit of concurrency finds a peer's capacity: simulated, on a virtual clock."""
