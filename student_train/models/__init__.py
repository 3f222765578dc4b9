"""Students as modules: decoder, adapters, objectives, export."""
