"""What is learned from inside a teacher, one kind a file."""
