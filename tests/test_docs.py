"""Links, commands and messages in the documents are true."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCUMENTS = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
)
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands(document: Path) -> list[str]:
    """Lines of the shell blocks, without comments, prompts and what comes before a command."""
    blocks = re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.M | re.S)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_resolve(document):
    for target, anchor in LINK.findall(document.read_text()):
        path = document.parent / target if target else document
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), f"{target}#{anchor}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_page_says_who_it_is_for_and_links_the_next_one(page):
    text = page.read_text()
    assert re.match(r"# [^\n]+\n\nFor ", text)
    assert re.search(r"\n\nNext: \[[^\]]+\]\([^)]+\)\n$", text)


def test_every_page_is_in_the_readme():
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "gate.md").read_text()
    assert {page.name for page in PAGES} <= set(re.findall(r"([\w-]+\.md)\)", text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_targets_of_make_and_modules_in_commands_exist(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for line in commands(document):
        if made := re.search(r"\bmake((?: [a-z-]+)+)", line):
            assert set(made[1].split()) <= targets, line
        for module in re.findall(r"python3? -m ((?:pipeline|benchmarks|device_tests)[\w.]*)", line):
            assert importlib.util.find_spec(module), line


@cache
def messages() -> str:
    """Text of the string literals in the code; `{}` stands for what is put in."""
    pieces = []
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
                pieces.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                pieces.append(node.value)
    return "\n".join(pieces)


def test_messages_in_troubleshooting_are_those_of_the_code():
    text = (ROOT / "docs" / "troubleshooting.md").read_text().split("## On the device")[0]
    for cell in re.findall(r"^\| (`[^|]+) \|", text, re.M):
        for fragment in re.findall(r"`([^`]+)`", cell):
            assert fragment in messages(), fragment
