"""An experiment, stage by stage, from its configuration to the comparison."""
