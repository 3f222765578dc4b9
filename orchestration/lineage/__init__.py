"""Where a student comes from: what is written down while it is made, and whether all of that still holds."""
