"""Sweeps: many experiments that differ in chosen values, and which of them is the best."""
