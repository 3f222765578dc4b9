"""What an experiment is given: data, prompts, templates and models."""
