"""What `distill cache` does and shows, beside the runs."""
