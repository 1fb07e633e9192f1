"""Images in, answers out: what the commands `predict` and `serve` share."""
