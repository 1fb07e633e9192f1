from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.registry.names import (
    Move,
    check_successor,
    parse_version,
    registry_name,
    standing,
)
from pipeline.registry.released import with_artifact
from tests.registry.registry_fixture import ROOT


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("deit_tiny_patch16_224.fashion_mnist", "deit-tiny"),
        ("deit_base_distilled_patch16_384", "deit-base-distilled-384"),
        ("vit_base_patch16_224.augreg2_in21k_ft_in1k", "vit-base"),
        ("mobilevitv2_100.cvnets_in1k", "mobilevitv2-100"),
        ("Mine-224", "mine"),
        ("224", "224"),
    ],
)
def test_a_model_has_the_name_that_people_look_for(model: str, name: str) -> None:
    assert registry_name(model) == name


def test_a_model_without_a_name_has_to_be_given_one() -> None:
    with pytest.raises(InputError, match=r"set release\.artifact in params\.yaml"):
        registry_name("..")


@pytest.mark.parametrize("text", ["deit-tiny@v1.2.0", "deit-tiny@1.2.0"])
def test_the_v_of_a_version_may_be_left_out(text: str) -> None:
    assert parse_version(text) == ("deit-tiny", "1.2.0")


@pytest.mark.parametrize(
    "text", ["deit-tiny", "deit-tiny@1.2", "a@v01.2.0", "a b@v1.0.0", "@v1.0.0"]
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="does not name a version"):
        parse_version(text)


@pytest.mark.parametrize(
    ("version", "existing", "allowed"),
    [
        ("0.1.0", [], True),
        ("1.0.1", ["1.0.0"], True),
        ("1.0.0", ["1.0.0"], False),
        ("1.2.4", ["1.2.3", "1.3.0"], True),  # a patch of an old line
        ("1.2.2", ["1.2.3", "1.3.0"], False),
        ("1.1.0", ["1.0.0", "1.3.0"], False),  # a line that never was
        ("1.10.0", ["1.9.0"], True),
        ("1.0.0-rc.1", ["1.0.0"], False),
        ("1.0.0", ["1.0.0-rc.1"], True),
        ("01.0.0", [], False),
    ],
)
def test_versions_rise_but_for_patches_of_a_line(
    version: str, existing: list[str], allowed: bool
) -> None:
    if allowed:
        check_successor("deit-tiny", version, existing)
    else:
        with pytest.raises(InputError):
            check_successor("deit-tiny", version, existing)


def moves(text: str) -> list[Move]:
    kinds = {"+": "promote", "<": "rollback", "-": "unassign"}
    return [Move(word[1:], kinds[word[0]]) for word in text.split()]


@pytest.mark.parametrize(
    ("history", "left"),
    [
        ("+1 +2 +3", ["1", "2", "3"]),
        ("+1 +2 +3 <2", ["1", "2"]),
        ("+1 +2 +3 <2 <1", ["1"]),  # never to and fro
        ("+1 +2 +3 <1", ["1"]),
        ("+1 +2 <1 +3", ["1", "3"]),
        ("+1 +2 +1", ["1", "2", "1"]),  # promoted again on purpose
        ("+1 +1", ["1"]),
        ("+1 +2 -2", ["1"]),
        ("<1", ["1"]),
    ],
)
def test_a_rollback_takes_away_what_was_promoted_since(history: str, left: list[str]) -> None:
    assert standing(moves(history)) == left


VERSIONS = st.lists(st.sampled_from("1234"), min_size=1, max_size=8)


@settings(derandomize=True, deadline=None)
@given(VERSIONS)
def test_rolling_back_all_the_way_retraces_the_promotions(promoted: list[str]) -> None:
    history = [Move(version, "promote") for version in promoted]
    way = []
    while len(had := standing(history)) > 1:
        way.append(had[-1])
        history.append(Move(had[-2], "rollback"))
    distinct = [v for before, v in zip([None, *promoted], promoted, strict=False) if v != before]
    assert [*way, standing(history)[0]] == distinct[::-1]


ENTRY = {"path": "released/deit-1.0.0", "type": "model", "desc": "release 1.0.0: #1"}


@pytest.mark.parametrize(
    "graph",
    [
        (ROOT / "dvc.yaml").read_text(),
        "artifacts:\n    other:\n        path: x\nstages: {}\n",
        "artifacts: # what comes out\n\n  # first\n  other:\n    path: x\n",
        "artifacts:\nstages: {}\n",
        "stages: {}",
        "",
    ],
)
def test_an_artifact_is_added_and_nothing_else_changes(graph: str) -> None:
    before = yaml.safe_load(graph) or {}
    after = yaml.safe_load(with_artifact(graph, "deit-tiny", ENTRY))
    assert after["artifacts"].pop("deit-tiny") == ENTRY
    assert after == {**before, "artifacts": before.get("artifacts") or {}}


def test_artifacts_in_flow_style_and_taken_names_are_refused() -> None:
    with pytest.raises(InputError, match="must be in block style"):
        with_artifact("artifacts: {other: {path: x}}\n", "deit-tiny", ENTRY)
    with pytest.raises(InputError, match=r"has an artifact other already; set release\.artifact"):
        with_artifact("artifacts:\n  other: {path: x}\n", "other", ENTRY)
