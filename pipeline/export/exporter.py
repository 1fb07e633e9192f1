"""Write the file of one format: what every exporter is given, and what is done around it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline import formats, paths
from pipeline.contract.files import load_contract
from pipeline.export.failure import exporting
from pipeline.files import atomic
from pipeline.params import Params
from pipeline.quantization.auto import settle_params


@dataclass(frozen=True)
class Sources:
    """The folders below ``artifacts`` that a file is made from."""

    artifacts: Path
    collected: bool = True  # whether folder hessians is of these weights; else collect them again

    @property
    def samples(self) -> Path:
        """With the calibration images."""
        return self.artifacts / paths.SAMPLES.name

    @property
    def rewritten(self) -> Path:
        """The float model, with the first half of the contract beside it."""
        return self.artifacts / paths.REWRITTEN.name

    @property
    def quantized(self) -> Path:
        """The int8 model, where a chosen format has stage ``quantize``."""
        return self.artifacts / paths.QUANTIZED.name

    @property
    def optimized(self) -> Path:
        """The TorchScript file for mobile, where a chosen format has stage ``optimize``."""
        return self.artifacts / paths.OPTIMIZED.name

    @property
    def hessians(self) -> Path | None:
        """What stage ``hessians`` found on the calibration images; None to collect it again."""
        return self.artifacts / paths.HESSIANS.name if self.collected else None


class Exporter(Protocol):
    """The function that ``Format.exporter`` names."""

    def __call__(self, params: Params, sources: Sources, out: Path) -> None:
        """Write the one file of the format, with its contract, into the new folder ``out``.

        What a library raises is turned into one sentence by :func:`export`.
        """
        ...


def export(key: str, params: Params, sources: Sources) -> str:
    """Write the folder of format ``key``, or a note in it if the format is off; return what to say.

    Raises:
        InputError: a library cannot express the model.
    """
    known = formats.get(key)
    out = sources.artifacts / known.folder
    if paths.left_out(key, params.formats, out):
        return paths.note(out)
    write: Exporter = formats.resolve(known.exporter)
    params = settle_params(params, sources.rewritten)
    with exporting(key, params.formats, load_contract(sources.rewritten)), atomic(out) as new:
        new.mkdir()
        write(params, sources, new)
    return str(paths.delivered_file(sources.artifacts, key))


def export_all(stage: str, params: Params, sources: Sources) -> str:
    """Write the files of the formats that ``stage`` exports; return what to say of it."""
    said = [export(key, params, sources) for key in formats.exported_by(stage)]
    return f"{stage}: {', '.join(said) or 'no format has this stage'}"
