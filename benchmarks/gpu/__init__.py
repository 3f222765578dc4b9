"""One GPU against its own floors: losses, steps, feed and DeepSpeed, with torch, transformers and numpy alone."""
