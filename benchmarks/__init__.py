"""Measurements, printed as ratios of two things measured side by side in one run. Nothing here is asserted."""
