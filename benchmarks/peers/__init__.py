"""`make bench-peers`: our files beside what other tools make of the same weights."""
