"""What students learn: one module a method, each with its one value `OBJECTIVE`; light, torch only inside functions."""
