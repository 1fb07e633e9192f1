"""Images in, answers out: what the commands `predict`, `compare` and `serve` share."""
