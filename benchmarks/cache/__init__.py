"""What a cached answer costs, by tier, beside the floors under it and beside a peer: see `--help`."""
