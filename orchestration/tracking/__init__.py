"""MLflow: what a run tells it, and the guarded server that shows it."""
