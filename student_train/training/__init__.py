"""The training of one stage, in each process of a group of workers."""
