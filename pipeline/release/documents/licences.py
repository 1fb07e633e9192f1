"""What is known of a licence, in the words of those who will read it."""

from __future__ import annotations

UNKNOWN = "unknown"
# The hub's own words for licences (https://huggingface.co/docs/hub/repositories-licenses) are
# SPDX's in lower case; for any other it wants `other` and a name.
HUB = frozenset(
    {
        *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "unlicense", "isc"),
        *("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
        *("gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0"),
    }
)


def spdx(text: str | None) -> str | None:
    """Return a licence as an SPDX expression; None where it is none that SPDX knows."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return str(canonicalize_license_expression(text)) if text else None
    except InvalidLicenseExpression:
        return None


def shown(text: str | None) -> str:
    """Return it for a reader, who is told where nobody knows."""
    return spdx(text) or text or UNKNOWN


def of_hub(text: str | None) -> dict[str, str]:
    """Return the metadata of a card of the hub that states it."""
    if text is None:
        return {"license": UNKNOWN}
    known = (spdx(text) or "").lower()
    if known in HUB:
        return {"license": known}
    return {"license": "other", "license_name": " ".join(text.split())}
