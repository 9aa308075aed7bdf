"""What measurements over sockets share: a load generator and a peer in C, processes on cores, floors, one workload."""
