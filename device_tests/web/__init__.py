"""Target ``web``: the ONNX files in a browser, through the page that people use.

The page decodes the golden image files and prepares them itself, so its cells show preprocessing,
too. `python -m device_tests.web.serve` serves the same page to people.
"""

from __future__ import annotations

import base64
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_tests.target import Bundle, Cell, Check, Cost, Missing, Results
from device_tests.web import packages
from device_tests.web.server import Site, serving
from pipeline.errors import InputError
from pipeline.evidence.golden import Floats, Golden
from pipeline.files import sha256_file
from pipeline.formats import tagged

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WHAT = "ONNX Runtime Web in headless Chromium: from the image files, through the page"
FORMATS = tagged("onnx")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_MS = 600_000  # large models
CHECKED = "#result[data-kind=check], .problem"
LOADED = "html[data-state=ready], html[data-state=refused], html[data-state=failed]"
DRIVER = Path(__file__).parent / "driver.js"


def missing() -> Missing | None:
    """Say what this machine lacks; see :class:`device_tests.target.Target`."""
    lacks = [name for name in ("node", "npm") if not shutil.which(name)]
    lacks += [] if chromium() else ["chromium"]
    if lacks:
        command = "sudo apt-get install -y chromium nodejs npm"
        return Missing(f"there is no {' and no '.join(lacks)}", command)
    if not find_spec("playwright"):
        return Missing("there is no Playwright for Python", "pip install -e '.[dev]'")
    return None


def chromium() -> str | None:
    """The system's browser: Playwright's own does not come from a package registry."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def install(cache: Path) -> None:
    """Install into ``cache``; see :class:`device_tests.target.Target`."""
    packages.install(cache)


def run(bundle: Bundle, cache: Path) -> Results:
    """Run the files of ``bundle``; see :class:`device_tests.target.Target`."""
    modules = packages.install(cache)
    cells: list[Cell] = []
    checks: list[Check] = []
    with browser() as chrome:
        for file_format in FORMATS:
            if path := bundle.files.get(file_format):
                site = Site(modules, path, bundle.golden.folder)
                cell, seen = _run_file(chrome, site, file_format, bundle.golden)
                cells.append(cell)
                checks += seen
    return Results(cells, checks)


@contextmanager
def browser() -> Iterator[Browser]:
    """The system's Chromium, headless.

    Raises:
        InputError: it is missing or does not start.
    """
    from playwright.sync_api import Error, sync_playwright

    path = chromium()
    if path is None:
        raise InputError("there is no Chromium; install it: sudo apt-get install -y chromium")
    with sync_playwright() as playwright:
        try:
            chrome = playwright.chromium.launch(executable_path=path)
        except Error as error:
            raise InputError(f"{path} does not start: {error}") from None
        try:
            yield chrome
        finally:
            chrome.close()


@dataclass
class Visit:
    """An open page, and what it did that it should not do."""

    page: Page
    home: str  # the server's address
    complaints: list[str] = field(default_factory=list)  # errors on the console
    elsewhere: list[str] = field(default_factory=list)  # requests to other servers
    broken: list[str] = field(default_factory=list)  # what the server does not have

    def open(self) -> str:
        """Load the page and wait for its model; return "ready", or "refused" if it is no good.

        Raises:
            InputError: the page itself does not work.
        """
        self.page.goto(self.home)
        if not self.broken:
            self.page.wait_for_selector(LOADED)
        state = str(self.page.evaluate("document.documentElement.dataset.state"))
        if self.broken or state == "failed":
            what = ", ".join(self.broken) or self.text("#problem")
            raise InputError(f"the page of the browser target does not work: {what}")
        return state

    def text(self, selector: str) -> str:
        """Return the text of the first element that ``selector`` finds."""
        return " ".join(self.page.locator(selector).inner_text().split())


@contextmanager
def visit(chrome: Browser, site: Site, **options: Any) -> Iterator[Visit]:
    """Serve ``site`` and yield a page on it that is not loaded yet; ``options`` as Playwright's."""
    with serving(site) as home, chrome.new_context(**options) as context:
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        seen = Visit(page, home)
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("console", lambda message: _hear(seen, message.type, message.text))
        page.on("request", lambda request: _note(seen.elsewhere, request.url, home))
        page.on("response", lambda r: seen.broken.append(r.url) if r.status >= 400 else None)
        yield seen


def _hear(seen: Visit, kind: str, text: str) -> None:
    if kind in ("error", "warning"):
        seen.complaints.append(text)


def _note(elsewhere: list[str], url: str, home: str) -> None:
    if not url.startswith((home, "blob:", "data:")):
        elsewhere.append(url)


def _run_file(
    chrome: Browser, site: Site, file_format: str, golden: Golden
) -> tuple[Cell, list[Check]]:
    from playwright.sync_api import Error

    version = chrome.version.split(".")[0]
    cell = Cell(
        format=file_format,
        sha256=sha256_file(site.model),
        runtime="ONNX Runtime Web",
        machine=f"{platform.machine()}, Chromium {version} (wasm)",
        loads=False,
        runs=False,
        own_preprocessing=True,
    )
    with visit(chrome, site) as seen:
        try:
            if seen.open() == "refused":
                return replace(cell, runtime=seen.text("#runtime"), error=seen.text("#problem")), []
            cell = replace(cell, runtime=seen.text("#runtime"), loads=True)
            driver = seen.page.evaluate_handle(DRIVER.read_text())
            seen.page.wait_for_selector(CHECKED)
            if seen.page.is_visible(".problem"):
                return replace(cell, error=seen.text("#problem")), []
            # Before the inputs are copied, which would count as the page's memory.
            peak_memory_mb = _peak_memory_mb(chrome)
            outcome = driver.evaluate("(driver) => driver.outcome()")
            inputs = driver.evaluate("(driver) => driver.inputs()")
        except Error as error:
            # Such as a renderer that ran out of memory.
            return replace(cell, error=f"Chromium: {error.message.splitlines()[0]}"), []
        cost = Cost(
            load_ms=float(seen.page.get_attribute("#model", "data-load-ms") or "nan"),
            first_ms=outcome["first_ms"],
            runs_ms=tuple(outcome["runs_ms"]),
            peak_memory_mb=peak_memory_mb,
        )
        cell = replace(cell, runs=True, logits=outcome["logits"], cost=cost)
        fed = [np.frombuffer(base64.b64decode(text), "<f4") for text in inputs]
        return cell, [_pixels(cell, golden, fed, outcome["std"]), _page(cell, seen)]


def _peak_memory_mb(chrome: Browser) -> float | None:
    """Peak resident memory of the largest renderer, the one that has the model; Linux only."""
    processes = chrome.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    peaks = []
    for process in processes:
        if process["type"] == "renderer":
            try:
                lines = Path(f"/proc/{process['id']}/status").read_text().splitlines()
            except OSError:
                continue
            peaks += [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return max(peaks) * 1024 / 1e6 if peaks else None


def _pixels(cell: Cell, golden: Golden, inputs: list[Floats], std: list[float]) -> Check:
    """Hold what the page fed to the model to the golden inputs, bit by bit."""
    kinds: dict[str, list[bool]] = {}
    apart = []
    for path, wanted, got in zip(golden.images, golden.inputs, inputs, strict=True):
        equal = got.tobytes() == wanted.tobytes()
        kinds.setdefault(path.suffix[1:].upper(), []).append(equal)
        if not equal and got.size == wanted.size:
            scale = 255 * np.array(std)[:, None, None]
            levels = np.rint(np.abs(got.reshape(wanted.shape) - wanted) * scale)
            apart.append((levels.max(), (levels > 0).any(0).mean()))
    detail = "; ".join(f"{sum(eq)} of {len(eq)} {kind} equal" for kind, eq in kinds.items())
    if apart:
        most, share = np.max(apart, axis=0)
        detail += f"; at most {most:g} of 255 levels apart, in up to {share:.1%} of the pixels"
    return Check(
        name="pixels",
        subject=cell.format,
        sha256=cell.sha256,
        passed=all(all(equal) for equal in kinds.values()),
        detail=detail,
    )


def _page(cell: Cell, seen: Visit) -> Check:
    """The page is content, and asked nobody else for anything."""
    faults = [f"console: {text}" for text in seen.complaints]
    faults += [f"request to {url}" for url in seen.elsewhere]
    detail = "; ".join(faults) or f"no errors, no request elsewhere; {seen.text('#verdict')}"
    return Check(
        name="page",
        subject=cell.format,
        sha256=cell.sha256,
        passed=not faults,
        detail=detail[:500],
    )
