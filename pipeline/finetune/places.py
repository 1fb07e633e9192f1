"""Where the stages of `finetune` put things; the same names as in ``finetune/dvc.yaml``."""

from __future__ import annotations

from pathlib import Path

ARTIFACTS = Path("artifacts/finetune")
RECORDS = Path("finetune")  # small text that is committed: history, metrics, confusion

TEACHER = "teacher"
TRAIN = "train"
PACKED = "packed"
RESUME = "resume"  # no output of a stage: DVC deletes those before it runs one

WEIGHTS_FILE = "weights.safetensors"
HISTORY_FILE = "history.csv"
METRICS_FILE = "metrics.json"
CONFUSION_FILE = "confusion.csv"
