"""Measurements of Polyroute beside its peers; nothing here is part of the product."""
