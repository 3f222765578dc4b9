"""Side effects of distilling: what students give away, prefer or lose that their teacher does not."""
