"""Where a model and its contract lie in a folder, without what loads the model."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.core.contract import Contract
from pipeline.support.files import read_json

MODEL_FILE = "model.safetensors"
CONTRACT_FILE = "contract.json"


def load_contract(folder: Path) -> Contract:
    """Read the first half of the contract that lies beside a model.

    Raises:
        InputError: it is missing or not JSON.
        IntegrityError: it is no contract.
    """
    return Contract.from_json(json.dumps(read_json(folder / CONTRACT_FILE)))
