"""How to feed a file and read its answer: the contract that travels with it."""
