"""What the router costs a call, beside the floors under it and beside its peers: see `--help`."""
