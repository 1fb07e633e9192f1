"""What each peer's documentation says to do, run in the peer's own environment.

Use: python -m benchmarks.peers.recipes.PEER VARIANT INPUTS OUT

INPUTS is the folder that :mod:`benchmarks.peers.inputs` wrote; what lies in the new folder OUT
afterwards is the delivery, its size included.
"""
