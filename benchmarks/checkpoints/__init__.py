"""Every kind of checkpoint that must work, run to a verdict: `make checkpoints`."""
