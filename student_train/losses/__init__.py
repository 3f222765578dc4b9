"""The losses, in nats a position, and their fused forms."""
