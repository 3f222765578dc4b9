"""The command line: one module a command group, from arguments to a call further in."""
