"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from pipeline.contract.contract import DATA_KEY, METADATA_KEY, Contract
from pipeline.errors import InputError, IntegrityError
from pipeline.files import sha256_file
from pipeline.paths import data_file
from pipeline.runtimes import FloatArray


class OnnxRuntime:
    """An ``.onnx`` file, float or int8."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has one exception class for each protobuf status
            raise InputError(f"{path}: ONNX Runtime cannot load it: {error}") from None
        about = self.session.get_modelmeta().custom_metadata_map
        contract = about.get(METADATA_KEY)
        if contract is None:
            raise IntegrityError(f"{path} carries no contract; was it made by edge-vit?")
        if DATA_KEY in about and sha256_file(data_file(path)) != about[DATA_KEY]:
            raise IntegrityError(
                f"{data_file(path)} is not what {path.name} was made with; run `dvc repro`"
            )
        self.contract = Contract.from_json(contract)

    def logits(self, batch: FloatArray) -> FloatArray:
        """Return logits float32 [n, classes] of ``batch``, float32 [n, 3, H, W]."""
        outputs = self.session.run([self.contract.output_name], {self.contract.input_name: batch})
        return np.asarray(outputs[0], dtype=np.float32)
