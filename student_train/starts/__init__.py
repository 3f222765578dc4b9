"""Students made of their teacher before training."""
