"""Rollouts of mixed teacher and student sampling, turn by turn."""
