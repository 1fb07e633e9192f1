"""Take the images of README's first screen from a finished run.

python -m scripts.screenshots [--folder artifacts] [--out docs/images]

Needs Chromium (sudo apt-get install -y chromium) and the packages of requirements-dev.lock.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

from device_tests import cache, web
from device_tests.web.packages import install
from device_tests.web.serve import TARGET, find_model
from device_tests.web.server import Site
from pipeline import paths
from pipeline.errors import InputError, exit_on_error

REPORT = {"width": 1100, "height": 1180}
BROWSER = {"width": 1100, "height": 900}
READY = "html[data-state=ready]"


def report(chrome: Browser, folder: Path, out: Path) -> None:
    """The first screen of the report page.

    Raises:
        InputError: there is no report in ``folder``.
    """
    page_file = (folder / paths.REPORTS.name / "report.html").resolve()
    if not page_file.is_file():
        raise InputError(f"{page_file} is missing; run `make repro`")
    page = _page(chrome, REPORT)
    page.goto(page_file.as_uri())
    _save(page, out)


def browser_page(chrome: Browser, folder: Path, out: Path) -> None:
    """The browser page with the answer to its first sample."""
    site = Site(install(cache.folder(TARGET)), *find_model(folder))
    with web.visit(chrome, site, viewport=BROWSER, color_scheme="light") as seen:
        seen.open()
        seen.page.locator("input[name=sample]").first.check(force=True)
        seen.page.wait_for_selector("#result:not([hidden])")
        seen.page.wait_for_selector(READY)
        seen.page.evaluate("scrollTo(0, 0)")
        _save(seen.page, out)


def _page(chrome: Browser, viewport: dict[str, int]) -> Page:
    return chrome.new_page(viewport=viewport, color_scheme="light")  # type: ignore[arg-type]


def _save(page: Page, out: Path) -> None:
    """Save what is seen in 256 colours, which is a third of the bytes."""
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        shot.convert("RGB").quantize(256).save(out, optimize=True)


def main(arguments: list[str] | None = None) -> None:
    """Write the images of the README from a finished run."""
    parser = argparse.ArgumentParser(prog="python -m scripts.screenshots", description=__doc__)
    parser.add_argument("--folder", type=Path, default=paths.ARTIFACTS, help="a run's artifacts")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="default docs/images")
    chosen = parser.parse_args(arguments)
    with exit_on_error(), web.browser() as chrome:
        chosen.out.mkdir(parents=True, exist_ok=True)
        report(chrome, chosen.folder, chosen.out / "report.png")
        browser_page(chrome, chosen.folder, chosen.out / "browser.png")
        print(f"screenshots: {chosen.out}/report.png, {chosen.out}/browser.png")


if __name__ == "__main__":
    main()
