"""How calls find replicas: the router's own policies over simulated replicas, on a virtual clock."""
