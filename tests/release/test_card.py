from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from pipeline.evidence.baselines import Baseline
from pipeline.metrics.intervals import wilson
from pipeline.metrics.measures import between_steps
from pipeline.release.documents.card import card, plain, prose
from pipeline.release.documents.material import Material
from tests.release.materials import contract, material
from tests.verdict import builders as evidence
from tests.verdict import test_devices

HOSTILE = (
    "a | b",
    "two\nlines",
    "<script>alert(1)</script>",
    "</li></ul><img src=x onerror=y>",
    "[link](http://example.com)",
    "![image](x.png)",
    "`code` ```fence```",
    "**bold** _slanted_ ~~struck~~",
    "# heading",
    "---",
    "1. first",
    "- second",
    "{{ 7 * 7 }} {% raw %}",
    "$x^2$ &amp; \\| back\\slash",
    "名前, ünïcode",
)


class _Text(HTMLParser):
    """The tags of a page, and the text of each list item and table cell."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.items: list[str] = []
        self.within = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag in ("li", "td", "th", "h1"):
            self.items.append("")

            self.within = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("li", "td", "th", "h1"):
            self.within = False

    def handle_data(self, data: str) -> None:
        if self.within:
            self.items[-1] += data


def seen(text: str) -> _Text:
    """What a reader of the card sees, below its metadata."""
    html = MarkdownIt("commonmark").enable("table").enable("strikethrough").render(text)
    return _Text(html)


def unmeasured(text: str) -> list[str]:
    """The targets that the card says were not measured."""
    line = next(line for line in text.splitlines() if line.startswith("- on the device tests'"))
    return line.replace("\\", "").partition(" target")[2].removeprefix("s ").split(", ")


def read(made: Material) -> ModelCard:
    """The card, as the hub's library reads it."""
    return ModelCard(card(made))


def cells(made: Material, title: str) -> list[str]:
    """One row of the card's table of results."""
    row = next(line for line in read(made).text.splitlines() if line.startswith(f"| {title}"))
    return [cell.strip() for cell in row.split("|")[2:-1]]


def test_the_headline_comes_first_and_the_results_are_those_of_the_evidence() -> None:
    made = material()
    text = read(made).text
    first = text.split("\n## ")[0]
    assert "% of the answers: " in first
    assert "passed for channel candidate" in first
    pairs = made.evidence.parity.artefacts["ptl"].accuracy
    right = pairs.right
    header = cells(made, " ")
    ptl = header.index(".ptl")
    assert cells(made, "Right answers, %")[ptl] == f"{right / 20:.2f}"
    assert cells(made, "Size, MB")[ptl] == "6.00"
    assert "Times on\na test, 1 thread(s)" in text


def test_each_result_is_said_once() -> None:
    text = read(material()).text
    for title in ("Size, MB", "Right answers, %", "Same answer as float, %", "Median time, ms"):
        assert text.count(title) == 1
    assert text.count("no float baseline was recorded") == 1
    assert not re.search(r"\d [\[(]\d+\.\d+, ", text.split("## Use, and limits")[0])


def test_code_in_a_reason_is_code() -> None:
    text = read(material()).text.split("## Results")[0]
    assert "run `edge-vit baseline` there" in text
    assert "\\`" not in text


@pytest.mark.parametrize("text", HOSTILE)
def test_prose_outside_code_is_shown_as_it_is(text: str) -> None:
    text = text.replace("`", "'")
    shown = " ".join(text.split())
    assert seen(f"- {prose(f'{text} `x_y` {text}')}").items[0].strip() == f"{shown} x_y {shown}"


def test_another_measurement_is_another_card() -> None:
    worse = evidence.case()
    worse.measure("pte", worse.flipped(lost=5, won=0))
    pairs = worse.parity["artefacts"]["pte"]["accuracy"]
    right = pairs["both"] + pairs["only_edge"]
    rows = [cells(made, "Right answers, %") for made in (material(worse), material())]
    assert rows[0][-1] == f"{right / 20:.2f}"
    assert rows[0][-1] != rows[1][-1]


def test_the_metadata_holds_a_result_for_each_number_with_an_interval() -> None:
    made = material()
    data = read(made).data
    assert data.model_name == "some_vit"
    found = {result.metric_name: result for result in data.eval_results}
    assert len(found) == 8
    accuracy = found["accuracy of some_vit-int8_onnx-1.2.3.int8.onnx"]
    pairs = made.evidence.parity.artefacts["int8_onnx"].accuracy
    right = pairs.right
    bounds = wilson(right, 2000)
    assert accuracy.metric_value == right / 2000
    assert accuracy.metric_args["interval"] == pytest.approx([bounds.low, bounds.high], abs=1e-6)
    assert accuracy.task_type == "image-classification"
    assert accuracy.dataset_args["edge_vit_samples_sha256"] == evidence.digest("samples")


def test_equal_material_gives_equal_bytes() -> None:
    assert card(material(evidence.case())) == card(material(evidence.case()))


def test_the_library_writes_the_card_as_it_was_read() -> None:
    text = card(material())
    assert str(ModelCard(text)) == text


def test_without_labels_no_accuracy_is_claimed() -> None:
    made = read(material(evidence.case(labelled=False)))
    assert {r.metric_type for r in made.data.eval_results} == {"top-1-agreement-with-float"}
    assert "accuracy was not" in made.text
    assert "Right answers" not in made.text
    assert "without labels" in made.text


def test_what_was_not_measured_is_said() -> None:
    text = read(material()).text
    assert "no float baseline was recorded on any" in text
    assert "on a phone: these files ran on none" in text
    for target in ("lite_app", "arm64", "web", "android"):
        assert target in unmeasured(text)
    assert "`baseline_ratio_max`: no record of NVIDIA GeForce RTX 4090" in text


def test_a_recorded_gpu_is_said() -> None:
    recorded = evidence.case()
    recorded.baselines = (
        Baseline(
            device=evidence.DEVICE,
            kind="cuda",
            recorded="2026-01-02",
            refusal=None,
            difference=between_steps(recorded.reference, recorded.reference),
            noise_floor=1e-5,
            runs_ms=(1.5,) * 20,
        ),
    )
    text = read(material(recorded)).text
    assert "baseline of NVIDIA GeForce RTX 4090 (cuda), 2026-01-02: float takes 1.50 ms" in text
    assert "no float baseline was recorded" not in text


def test_devices_are_said_with_their_instructions() -> None:
    made = material(test_devices.case(test_devices.cell(cost=COST)))
    text = read(made).text
    row = next(line for line in text.splitlines() if "PyTorch Lite 1.13.1" in line)
    assert "| aarch64" in row
    assert row.rstrip("| ").endswith("600.0")
    assert "arm64" not in unmeasured(text)
    assert "web" in unmeasured(text)


def test_devices_that_ran_other_bytes_are_not_said() -> None:
    other = test_devices.case(test_devices.cell(cost=COST, sha256="0" * 64))
    text = read(material(other)).text
    assert "M instructions" not in text
    assert "arm64" in unmeasured(text)


COST = {"runs_ms": [], "peak_memory_mb": None, "instructions": [600_000_000]}


def test_hostile_labels_are_shown_and_are_no_markup() -> None:
    text = read(material(contract=contract(HOSTILE))).text
    got, usual = seen(text), seen(read(material()).text)
    assert got.tags == usual.tags
    for label in HOSTILE:
        assert " ".join(label.split()) in [" ".join(item.split()) for item in got.items]


@pytest.mark.parametrize("label", HOSTILE)
def test_plain_text_is_shown_as_it_is_in_lists_and_tables(label: str) -> None:
    rows = seen(f"- {plain(label)}\n\n| a | b |\n|---|---|\n| {plain(label)} | x |\n")
    assert [item.strip() for item in rows.items] == [
        " ".join(label.split()),
        "a",
        "b",
        " ".join(label.split()),
        "x",
    ]
    assert rows.tags <= {"ul", "li", "table", "thead", "tbody", "tr", "th", "td"}


def test_a_thousand_labels_are_named_in_part() -> None:
    text = read(material(contract=contract(tuple(f"class {i}" for i in range(1000))))).text
    assert "class 19\n- and 980 more, all in `labels.txt`" in text
    assert "class 20" not in text
    assert "(deit" in text
    assert "1000 classes" in text


def test_one_class_is_enough() -> None:
    assert "[1, 1], in the order" in read(material(contract=contract(("only",)))).text


@pytest.mark.parametrize(
    ("licence", "metadata", "words"),
    [
        ("MIT", {"license": "mit"}, "| MIT |"),
        ("apache-2.0", {"license": "apache-2.0"}, "| Apache-2.0 |"),
        (None, {"license": "unknown"}, "| unknown |"),
        ("my own, ask", {"license": "other", "license_name": "my own, ask"}, "| my own, ask |"),
        ("cecill-2.1", {"license": "other", "license_name": "cecill-2.1"}, "| CECILL-2.1 |"),
    ],
)
def test_the_licence_is_the_checkpoint_s(
    licence: str | None, metadata: dict[str, str], words: str
) -> None:
    got = read(material(contract=contract(licence=licence)))
    assert {key: got.data.to_dict()[key] for key in metadata} == metadata
    assert f"| licence of the weights {words}" in got.text


def test_a_checkpoint_of_the_hub_is_the_base_model() -> None:
    made = contract()
    source = dataclasses.replace(made.checkpoint, source="hf:timm/some_vit@0123abc")
    data = read(material(contract=dataclasses.replace(made, checkpoint=source))).data
    assert (data.base_model, data.base_model_relation) == ("timm/some_vit", "quantized")
    assert read(material()).data.base_model is None


def test_a_user_s_folder_is_not_told() -> None:
    made = material()
    values = made.params.model_dump()
    values["samples"]["source"] = "/home/somebody/secret/my photos"
    params = type(made.params).model_validate(values)
    text = card(material(params=params))
    assert "/home/somebody" not in text
    assert "2000 images of my photos" in text
    assert yaml.safe_load(text.split("---")[1])["model-index"][0]["results"][0]["dataset"][
        "type"
    ] == ("my-photos")


def test_a_file_that_is_not_delivered_is_not_explained() -> None:
    made = material()
    only = material(files=tuple(f for f in made.files if f.key == "pte"))
    text = read(only).text
    assert "LiteModuleLoader" not in text
    assert "onnxruntime-web" not in text
    assert 'load_program("some_vit-pte-1.2.3.pte")' in text


def test_a_verdict_with_failures_says_them() -> None:
    bad = evidence.case()
    bad.measure("ptl", np.roll(bad.reference, 1, axis=1))
    text = read(material(bad)).text
    assert "refused for channel candidate" in text
    assert "**Failed:**\n\n- .ptl, `top1_agreement_min`: 0% against a limit of 95%: 0 of" in text
