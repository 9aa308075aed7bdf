"""What metrics cost: each call, and each scrape of many models."""
