"""Metrics of a student against its teacher, in numpy and independent of the training code."""
