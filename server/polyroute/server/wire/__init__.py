"""Translation between wire messages and the words of core: the only place that knows both sides."""
