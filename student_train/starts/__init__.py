"""Students that are cut from their teacher before training."""
