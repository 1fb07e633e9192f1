"""The ``finetune`` sub-pipeline: trains any timm vision transformer; see finetune/README.md."""
