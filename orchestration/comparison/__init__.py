"""The comparison at the end of a run, and how a finished one is shown again."""
