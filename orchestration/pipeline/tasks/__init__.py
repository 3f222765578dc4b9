"""Experiments that distil a task."""
