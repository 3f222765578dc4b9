"""Students as modules: decoder, adapters, export."""
