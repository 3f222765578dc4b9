"""Tasks: how a row becomes a question, how an answer is read, what is counted. No file, no model."""
