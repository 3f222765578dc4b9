"""What a run takes of electricity, stage by stage."""
