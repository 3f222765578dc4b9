"""What an experiment asks, needs and costs: arithmetic, nothing is started."""
