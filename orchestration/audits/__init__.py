"""What students of a finished run give away, prefer or lose that their teacher does not: measured after the run."""
