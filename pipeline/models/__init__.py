"""timm's networks, their efficient form, and rewrites that preserve their function."""
