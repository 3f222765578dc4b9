"""What a run leaves and shows: artifacts, curves, the terminal."""
