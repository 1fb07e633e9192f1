"""What each peer's documentation says to do, run in the peer's own environment.

Use: python -m benchmarks.peers.recipes.PEER VARIANT GIVEN OUT

GIVEN is the folder that :mod:`benchmarks.peers.given` wrote; what lies in the new folder OUT
afterwards is the delivery, its size included.
"""
