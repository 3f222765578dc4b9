"""The training of one stage, in each process of a worker group."""
