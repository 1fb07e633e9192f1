"""edge-vit: vision transformers for phones, boards and browsers, published only with proof.

One module for each DVC stage, named as the stage is. Imports point one way:
stages -> ``runtimes`` (load and run any delivered file) -> ``support`` (files, images, models)
-> ``core`` (pure decisions: no input or output, no torch).
"""
