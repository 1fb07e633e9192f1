"""Licence notices: of the weights, the golden images, the labels. What nobody knows is said so."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from pipeline.checkpoints import zoo
from pipeline.files import read_bytes, write_bytes, write_text
from pipeline.release.documents import licences
from pipeline.release.documents.card import plain
from pipeline.release.documents.material import Material

NOTICES_FILE = "NOTICES.md"
FOLDER = "licenses"
NAMES = ("license", "licence", "copying", "notice")  # how such files begin, in any case
MAX_BYTES = 1 << 20
TEXTS = frozenset({"Apache-2.0"})  # in our own folder: those that leave no holder's name to fill in
UNKNOWN = (
    "No licence is stated, so it is unknown: that is no permission. Ask whoever made them before "
    "you pass them on."
)


def write_notices(release: Path, material: Material) -> None:
    """Write ``NOTICES.md`` into a release, and the licence texts that are known beside it."""
    params = material.params
    sections = [
        *("# Notices", "", "## Weights", "", *_weights(release, material)),
        *("", "## Golden images", ""),
        *_images(release, "samples", params.samples.source, material.samples_name),
        *_images(release, "photographs", params.golden.photographs, "photographs"),
        *("", "## Names of the classes", "", _labels(material), ""),
    ]
    write_text(release / NOTICES_FILE, "\n".join(sections))


def _weights(release: Path, material: Material) -> list[str]:
    checkpoint = material.contract.checkpoint
    lines = [
        f"The files are {plain(checkpoint.name)} from {plain(checkpoint.source)}, SHA-256 "
        f"`{checkpoint.source_sha256}`, quantized and converted.",
        "",
    ]
    if checkpoint.license is None:
        return [*lines, UNKNOWN]
    known = licences.shown(checkpoint.license)
    lines.append(f"Licence, as the origin of the weights states it: {plain(known)}.")
    if known in TEXTS:
        name = f"{known}.txt"
        text = resources.files(__package__).joinpath(FOLDER, name).read_bytes()
        write_bytes(release / FOLDER / name, text)
        lines.append(f"Its text: [{FOLDER}/{name}]({FOLDER}/{name}).")
    return lines


def _images(release: Path, kind: str, folder: Path, name: str) -> list[str]:
    """Copy the licence files that lie beside images; say where there are none."""
    found = _licence_files(folder)
    for path in found:
        write_bytes(release / FOLDER / kind / path.name, read_bytes(path, MAX_BYTES))
    if not found:
        return [f"- of {plain(name)}: no licence file lies beside them. {UNKNOWN}"]
    links = ", ".join(f"[{plain(p.name)}]({FOLDER}/{kind}/{p.name})" for p in found)
    return [f"- of {plain(name)}: {links}"]


def _licence_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().startswith(NAMES)
        and path.suffix.lower() in ("", ".txt", ".md")
        and path.name.isprintable()
        and path.is_file()
    )


def _labels(material: Material) -> str:
    given = material.params.model.labels
    entry = zoo.load_zoo().entry_of(material.contract.checkpoint.source_sha256)
    if zoo.IMAGENET in (str(given), entry and entry.labels):
        return "ImageNet-1k's, in timm's words (Apache-2.0)."
    if given is not None:
        return f"From {plain(given.name)}. Their licence is not stated, so it is unknown."
    return "As the origin of the weights has them, under the licence of the weights."
