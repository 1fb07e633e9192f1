"""Any checkpoint becomes float32 weights and what is known about them."""
