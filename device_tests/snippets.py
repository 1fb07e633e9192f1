"""The code in a release's model card, as a reader would copy it."""

from __future__ import annotations

import re
from pathlib import Path

CARD_FILE = "README.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(release: Path, language: str) -> list[str]:
    """Return the blocks of code in ``language``, in the card's order."""
    card = (release / CARD_FILE).read_text(encoding="utf-8")
    return [code for name, code in FENCE.findall(card) if name == language]
