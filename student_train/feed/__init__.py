"""From a view of the cache to the microbatches of a step."""
