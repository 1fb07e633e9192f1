"""What code a module can run: the files of the package that it imports, at once or later."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Folders whose modules are apart from each other: a stage depends on single files of them.
APART = ("stages", "commands", "finetune")
FORMATS = ROOT / "pipeline" / "formats.py"  # names modules that others resolve


def closure(module: str) -> set[Path]:
    """Files below the root that ``module`` (`pipeline.stages.fetch`) reaches by its imports, those
    inside functions and by name included, and the data files beside each."""
    reached: set[str] = set()
    left = [module]
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            left += _imports(name)
    files = {_file(name) for name in reached}
    folders = {file.parent for file in files if file.parent != ROOT / "pipeline"}
    data = {
        file
        for folder in folders
        if folder.name not in APART
        for file in folder.iterdir()
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    return {file.relative_to(ROOT) for file in files | data}


def code_dependencies(module: str) -> set[str]:
    """What a stage that runs ``module`` lists in dvc.yaml: folders of subjects, else files."""
    return {
        str(file) if len(file.parts) == 2 or file.parts[1] in APART else "/".join(file.parts[:2])
        for file in closure(module)
    }


@functools.cache
def _imports(module: str) -> tuple[str, ...]:
    file = _file(module)
    names = set()
    for node in _runtime_nodes(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}": alias.name for alias in node.names}
            modules = {name for name in members if _exists(name)}
            names |= modules | ({node.module} if len(modules) < len(members) else set())
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and file != FORMATS:
            names |= set(named_in(node.value))  # for importlib
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "formats.resolve":
            names |= _named_by_formats(package=".".join(module.split(".")[:2]))
    return tuple(name for name in names if _exists(name))


def _named_by_formats(package: str) -> set[str]:
    """Modules of ``package`` that the descriptions of formats name.

    Exporters are resolved in `export`, runtimes in `runtimes`: code that only reads a format's
    key depends on neither.
    """
    nodes = ast.walk(ast.parse(FORMATS.read_text()))
    strings = [node.value for node in nodes if isinstance(node, ast.Constant)]
    named = [name for text in strings if isinstance(text, str) for name in named_in(text)]
    return {name for name in named if name.startswith(f"{package}.")}


def named_in(text: str) -> list[str]:
    """Modules that are loaded by name, as ``module`` or ``module:object``: of
    ``pipeline.runtimes.`` in an f-string, all of them."""
    text = text.partition(":")[0]
    if not re.fullmatch(r"pipeline(\.\w+)+\.?", text):
        return []
    if not text.endswith("."):
        return [text]
    folder = ROOT.joinpath(*text.split("."))
    return [f"{text}{path.stem}" for path in folder.glob("*.py")]


def _runtime_nodes(tree: ast.AST):
    """All nodes, but not what only a type checker imports."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _runtime_nodes(child)


def _exists(module: str) -> bool:
    if not module.startswith("pipeline.") or not module.replace(".", "").isidentifier():
        return module == "pipeline"
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
