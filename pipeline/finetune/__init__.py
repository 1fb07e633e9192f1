"""The ``finetune`` sub-pipeline: trains any timm vision transformer; see docs/fine-tuning.md."""
