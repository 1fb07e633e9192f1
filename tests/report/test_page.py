"""The report page on made-up evidence: it shows everything, loads nothing and believes no label."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import paths
from pipeline.errors import InputError, IntegrityError
from pipeline.evidence.read import EvidencePaths, read_evidence
from pipeline.files import sha256_file, write_json, write_text
from pipeline.formats import FORMATS
from pipeline.images.samples import SampleSet, samples_sha256
from pipeline.params import Params, load_params
from pipeline.release.judge import judge
from pipeline.report import comparison, tables
from pipeline.report.gauge import gauge
from pipeline.report.page import code
from pipeline.stages.report import report
from tests.conftest import ROOT
from tests.made_up import make

COUNT = 60
RECORDED = paths.Recorded(Path("none"), Path("none"))
HOSTILE = "<script>alert('label')</script>"
LABELS = ("bag", HOSTILE, 'coat" onerror="alert(1)', "dress & boot")
VOID = {"meta", "source", "img", "br", "rect", "line", "circle"}


class Page(HTMLParser):
    """What a browser would make of the page: its elements, their text, and whether they close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.headings: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            self.headings.append(self.open[-1])

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def make_run(artifacts: Path, **changes: Any) -> Path:
    return make(
        artifacts,
        count=COUNT,
        labels=LABELS,
        source="<b>somewhere</b>",
        side=32,
        changes_answers="int8_onnx",
        **changes,
    )


@pytest.fixture(scope="module")
def params() -> Params:
    """The default ones, with one limit that asks for less."""
    default = load_params(ROOT / "params.yaml")
    gate = default.gate.model_copy(update={"noise_multiple": 11.0})
    return default.model_copy(update={"gate": gate})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "artifacts")


@pytest.fixture(scope="module")
def html(params: Params, run: Path) -> str:
    return report(params, run, RECORDED, run / "reports").read_text()


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_verdict_comes_first_and_is_the_gates(params: Params, run: Path, page: Page) -> None:
    verdict = judge(params, run, RECORDED).verdict
    assert not verdict.passed, "the made-up run has answers that changed"
    assert page.headings[0] == "h1"
    assert page.text.index("Refused for channel candidate") < page.text.index("The criteria")
    for outcome in ("pass", "fail", "undecided"):
        assert f"{verdict.count(outcome)} {outcome}" in page.text


def test_each_criterion_has_its_number_its_limit_and_its_note(
    params: Params, run: Path, page: Page
) -> None:
    words = " ".join(page.text.split("The criteria")[1].split("What this test")[0].split())
    for c in judge(params, run, RECORDED).verdict.criteria:
        shown = tables.judged(c)
        assert shown.title in words
        assert c.name in words
        assert c.subject in words
        if "TARGETS" not in c.note:  # commands for several targets are one
            assert " ".join(c.note.replace("`", "").split()) in words
        for number in (shown.value, shown.limit):
            assert shown.in_files or number in words
        if shown.in_files and shown.limit:
            assert f"limit {shown.limit.partition(' of ')[0]}" in words


def test_each_result_of_a_criterion_that_passed_is_shown_once(
    params: Params, run: Path, html: str
) -> None:
    gauges = re.findall(r'class="gauge \w+"[^>]*aria-label="([^"]+)"', html)
    verdict = judge(params, run, RECORDED).verdict
    passed = [drawn for c in verdict.criteria if c.outcome == "pass" and (drawn := gauge(c))]
    assert len(passed) > 10
    assert Counter(drawn.words for drawn in passed) <= Counter(gauges)
    others = [drawn for c in verdict.criteria if c.outcome != "pass" and (drawn := gauge(c))]
    # What did not pass comes first, and has its place among the files.
    assert len(gauges) <= len(passed) + 2 * len(others)


def test_what_failed_is_first_and_what_passed_is_folded(page: Page, html: str) -> None:
    section = page.text.split("The criteria")[1].split("The files")[0]
    order = [section.index(word) for word in ("✕ fail", "? undecided", "criteria passed")]
    assert order == sorted(order)
    folded = html.split("<details>")[1].split("</details>")[0]
    assert "criteria passed</summary>" in folded
    assert 'class="outcome' not in folded


def test_the_headline_is_in_the_first_section(run: Path, page: Page) -> None:
    evidence = read_evidence(EvidencePaths.of_run(run, RECORDED))
    words = comparison.headline(evidence.parity, evidence.latency)
    assert "% of the answers" in words
    assert words in page.text.split("The criteria")[0]


def test_no_backtick_is_shown(page: Page) -> None:
    assert "`" not in page.text
    assert "code" in {tag for tag, _ in page.elements}


def test_backticks_become_code_and_markup_stays_text() -> None:
    assert code("run `a <b>` & `c`") == "run <code>a &lt;b&gt;</code> &amp; <code>c</code>"
    assert code("an odd ` stays") == "an odd ` stays"


def test_tables_that_scroll_are_reachable_by_keyboard_and_named(page: Page) -> None:
    regions = [a for a in page.attributes("div") if "scroll" in str(a.get("class"))]
    assert len(regions) >= 3
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in regions)


def test_what_asks_for_less_is_said(page: Page) -> None:
    assert "gate.noise_multiple is 11, looser than as shipped: 10" in page.text


def test_each_refusal_is_said_with_number_and_limit(params: Params, run: Path, page: Page) -> None:
    first = " ".join(page.text.split("The criteria")[1].split("criteria passed")[0].split())
    verdict = judge(params, run, RECORDED).verdict
    failed = [c for c in verdict.criteria if c.outcome == "fail"]
    assert failed
    for c in failed:
        shown = tables.judged(c)
        assert c.subject in first
        assert c.note.replace("`", "") in first
        if c.value is not None and c.limit is not None:
            assert shown.value in first
            assert f"limit {shown.limit}" in first


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(page: Page) -> None:
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "base"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} has {name}"
            if name in ("src", "srcset", "href", "xlink:href", "action", "data", "poster"):
                assert value, f"{tag} has an empty {name}"
                assert value.startswith(("data:image/", "#")), f"{tag} {name}={value[:60]}"
    policy = page.attributes("meta")[1]["content"]
    assert policy
    assert "default-src 'none'" in policy


def test_style_names_no_address(html: str) -> None:
    style = html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_text_from_data_is_escaped(html: str, page: Page) -> None:
    assert HOSTILE not in html
    assert HOSTILE in page.text
    assert "<b>somewhere</b>" in page.text
    assert "a <test>" in page.text


def test_links_within_the_page_lead_somewhere(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"] for attributes in page.attributes("a")}
    assert targets <= {f"#{name}" for name in ids}
    assert len(targets) >= 10


def test_the_page_is_well_formed_and_says_its_language(html: str, page: Page) -> None:
    assert html.startswith("<!doctype html>")
    assert page.open == []
    assert page.attributes("html") == [{"lang": "en"}]
    levels = [int(heading[1]) for heading in page.headings]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_picture_has_words(page: Page) -> None:
    assert all(image.get("alt") for image in page.attributes("img"))
    assert all("aria-label" in drawn or "aria-hidden" in drawn for drawn in page.attributes("svg"))


def test_every_chart_has_a_light_and_a_dark_rendering(page: Page) -> None:
    sources = page.attributes("source")
    assert len(sources) == len(FORMATS) + 4  # a scatter each; two of latency, two of cost
    assert {source["media"] for source in sources} == {"(prefers-color-scheme: dark)"}
    charts = [image for image in page.attributes("img") if "svg" in str(image["src"])[:20]]
    assert len(charts) == len(sources)
    assert not {chart["src"] for chart in charts} & {source["srcset"] for source in sources}


def test_changed_answers_are_shown_with_their_images(run: Path, page: Page) -> None:
    evidence = read_evidence(EvidencePaths.of_run(run, RECORDED))
    flips = evidence.parity.artefacts["int8_onnx"].flips
    changed = flips.right_to_wrong + flips.wrong_to_right + flips.wrong_to_wrong
    assert changed
    assert f"{changed} of {COUNT} answers changed" in page.text
    thumbnails = [i for i in page.attributes("img") if "png" in str(i["src"])[:20]]
    assert len(thumbnails) == min(changed, 24)


def test_provenance_has_every_hash(run: Path, page: Page) -> None:
    evidence = read_evidence(EvidencePaths.of_run(run, RECORDED))
    for digest in (
        *(sha256_file(path) for path in paths.delivered_files(run).values()),
        evidence.parity.checkpoint_sha256,
        evidence.parity.samples.sha256,
        evidence.latency.seal,
    ):
        assert digest in page.text
    assert "torch 9.9" in page.text


def test_the_same_evidence_gives_the_same_bytes(
    params: Params, run: Path, html: str, tmp_path: Path
) -> None:
    again = report(params, run, RECORDED, tmp_path)
    assert again.read_bytes() == html.encode()


def test_unlabelled_samples_and_a_file_without_numbers_have_their_page(
    params: Params, tmp_path: Path
) -> None:
    artifacts = make_run(tmp_path / "artifacts", labelled=False, broken="pte")
    text = report(params, artifacts, RECORDED, tmp_path / "out").read_text()
    page = Page(text)
    assert "The samples have no labels, so there is no accuracy of a class." in page.text
    assert ".pte answers with NaN or infinity" in page.text
    assert "Not drawn, since there are no finite answers: .pte." in page.text
    assert len(page.attributes("source")) == len(FORMATS) - 1 + 4
    assert "lost)" not in page.text


def test_images_of_other_samples_are_not_passed_off_as_these(
    params: Params, tmp_path: Path
) -> None:
    artifacts = make_run(tmp_path / "artifacts")
    path = artifacts / "samples" / "samples.json"
    about = json.loads(path.read_text())
    hashes = SampleSet.load(path.parent).verify()
    about["ids"].reverse()
    write_json(path, about | {"sha256": samples_sha256(hashes, about["labels"], about["ids"])})
    text = report(params, artifacts, RECORDED, tmp_path / "out").read_text()
    assert "not those that were measured, so their images are not shown" in text
    assert "data:image/png" not in text


def change_logits(artifacts: Path) -> None:
    path = artifacts / "parity" / "logits.npz"
    with np.load(path) as archive:
        logits = dict(archive)
    logits["ptl"][0, 0] += 1
    np.savez(path, **logits)


def drop_logits(artifacts: Path) -> None:
    (artifacts / "parity" / "logits.npz").unlink()


def spoil_logits(artifacts: Path) -> None:
    (artifacts / "parity" / "logits.npz").write_bytes(b"PK not a zip")


def other_logits(artifacts: Path) -> None:
    np.savez(artifacts / "parity" / "logits.npz", reference=np.zeros((1, 1), np.float32))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            change_logits,
            IntegrityError,
            r"logits of ptl are not the measured ones; run `dvc repro --f",
        ),
        (drop_logits, InputError, r"logits\.npz is missing; run `dvc repro`"),
        (spoil_logits, InputError, r"does not hold what was measured"),
        (other_logits, IntegrityError, r"logits of reference are not the measured ones"),
    ],
)
def test_other_logits_are_refused_and_the_old_page_stays(
    params: Params,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    error: type[Exception],
    message: str,
) -> None:
    artifacts = make_run(tmp_path / "artifacts")
    write_text(tmp_path / "out" / "report.html", "the old page")
    spoil(artifacts)
    with pytest.raises(error, match=message):
        report(params, artifacts, RECORDED, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["report.html"]
    assert (tmp_path / "out" / "report.html").read_text() == "the old page"
