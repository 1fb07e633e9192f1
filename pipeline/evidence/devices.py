"""Evidence of runtimes that devices run, as `device_tests` wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pipeline.errors import IntegrityError
from pipeline.evidence.seal import check_seal
from pipeline.files import read_json
from pipeline.params import Target

KIND = "device"
REMEDY = "make device-test"


def read_devices(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the evidence in ``folder``, by target in their order; nothing where there is none.

    Raises:
        InputError: a file is not JSON.
        IntegrityError: evidence was changed after it was measured, or is another target's.
    """
    found = {}
    for path in (folder / f"{name}.json" for name in get_args(Target)):
        if not path.is_file():
            continue
        content = check_seal(read_json(path), KIND, str(path), REMEDY)
        if content["target"] != path.stem:
            raise IntegrityError(
                f"{path} is evidence of {content['target']}; delete it and run `{REMEDY}`"
            )
        found[path.stem] = content
    return found
