"""What is counted of an answer, one file a kind of task."""
