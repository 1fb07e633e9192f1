"""What an app must change, told from contracts."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.contract.changes import Operators, Side, changes, operators, to_do
from pipeline.contract.contract import Artefact, Contract
from tests.contract.builders import artefact, contract

PTL = artefact()


def side(made: Contract | None = None, name: str = "m-1.ptl", file: Artefact | None = PTL) -> Side:
    files = {} if file is None else {"ptl": file}
    return Side(made or contract(), dict.fromkeys(files, name), files)


def preprocessing(**values: object) -> Contract:
    made = contract()
    return dataclasses.replace(
        made, preprocessing=dataclasses.replace(made.preprocessing, **values)
    )


def test_the_same_release_asks_for_nothing() -> None:
    assert to_do(side(), side()) == []
    assert changes(contract(), contract()) == []


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (
            side(preprocessing(size=(384, 256))),
            "height and width of the input: 384 x 256 instead of 224 x 224",
        ),
        (
            side(preprocessing(mean=(0.5, 0.5, 0.5))),
            "mean to subtract: (0.5, 0.5, 0.5) instead of (0.485, 0.456, 0.406)",
        ),
        (
            side(preprocessing(interpolation="bilinear")),
            "filter to resize with: bilinear instead of bicubic",
        ),
        (side(contract(output_name="probabilities")), "name of the output: probabilities instead"),
        (
            side(contract(labels=("cat", "dog"), activation="sigmoid", threshold=0.7)),
            "function that makes probabilities of the output: sigmoid instead of softmax",
        ),
        (side(contract(labels=("cat", "dog"))), "number of answers: 2 instead of 3"),
        (side(contract(labels=("cat", "dog"))), "ship the new labels.txt; gone: bird"),
        (
            side(contract(labels=("dog", "cat", "bird"))),
            "labels.txt; answer 0 now means 'dog', not 'cat'",
        ),
        (side(contract(labels=("cat", "dog", "fish"))), "new: fish, gone: bird, answer 2 now"),
        (
            side(contract(checkpoint=dataclasses.replace(contract().checkpoint, sha256="c" * 64))),
            "thresholds on scores: set them anew",
        ),
        (side(name="m-2.ptl"), ".ptl: load m-2.ptl instead of m-1.ptl"),
        (side(file=None), ".ptl: there is none any more"),
        (side(file=artefact(engine="xnnpack")), ".ptl: run it with xnnpack instead of qnnpack"),
        (
            side(file=artefact(oldest_runtime="PyTorch Lite 2.1.2")),
            ".ptl: the oldest runtime is PyTorch Lite 2.1.2, was PyTorch Lite 1.13.1",
        ),
        (
            side(file=artefact(operators=(*PTL.operators, "aten::gelu"))),
            ".ptl: the runtime must have aten::gelu; rebuild it",
        ),
    ],
)
def test_each_change_that_an_app_must_follow_is_named(after: Side, words: str) -> None:
    assert words in "\n".join(to_do(side(), after))


def test_fewer_operators_ask_for_nothing() -> None:
    fewer = artefact(operators=("aten::add",))
    assert to_do(side(), side(file=fewer)) == []
    assert operators(PTL, fewer) == Operators(added=(), removed=("aten::softmax",))


def test_changes_of_the_contract_are_listed_by_their_place() -> None:
    after = dataclasses.replace(
        preprocessing(resize=256), version="1.3.0", labels=("cat", "dog", "bird", "fish")
    )
    found = {change.what: (change.before, change.after) for change in changes(contract(), after)}
    assert found == {
        "version": ("1.2.0", "1.3.0"),
        "preprocessing.resize": (248, 256),
        "labels": ("3: cat, dog, bird", "4: cat, dog, bird and 1 more"),
    }
