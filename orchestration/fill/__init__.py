"""Asking the teacher for what the cache lacks, and what that has cost."""
