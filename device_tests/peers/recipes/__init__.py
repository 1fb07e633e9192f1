"""What each peer's documentation says to do, run in the peer's own environment.

Use: python -m device_tests.peers.recipes.PEER VARIANT GIVEN OUT

GIVEN is the folder that :mod:`device_tests.peers.given` wrote; what lies in the new folder OUT
afterwards is the delivery, its size included.
"""
