"""Signals at the door: what teachers with a task head see in texts, read through the same cache."""
