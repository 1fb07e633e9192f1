"""The criteria, a module each for what they judge; each yields them from evidence alone."""
