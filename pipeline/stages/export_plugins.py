"""Stage ``export_plugins``: the files of formats that plugins register (``EDGE_VIT_FORMATS``)."""

from __future__ import annotations

from pipeline import paths
from pipeline.errors import exit_on_error
from pipeline.export.exporter import Sources, export_all
from pipeline.files import write_text
from pipeline.formats import PLUGINS, PLUGINS_STAGE
from pipeline.params import Params, load_params


def export_plugins(params: Params, sources: Sources) -> str:
    """Write a folder for each such format below ``plugins``; return what to say."""
    folder = sources.artifacts / paths.PLUGINS.name
    folder.mkdir(exist_ok=True)
    write_text(folder / paths.OFF_FILE, f"a folder for each format that {PLUGINS} registers\n")
    return export_all(PLUGINS_STAGE, params, sources)


def main() -> None:
    with exit_on_error():
        print(export_plugins(load_params(), Sources(paths.ARTIFACTS)))


if __name__ == "__main__":
    main()
