"""A library that cannot make a file ends in one sentence that says how to go on without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contract.files import load_contract
from pipeline.errors import InputError, ParamsError
from pipeline.export import pte
from pipeline.export.failure import exporting
from pipeline.params import Params
from pipeline.stages.chain import run as run_stages


def raised(
    healthy: Path, error: Exception, formats: tuple[str, ...] = ("ptl", "onnx", "pte")
) -> str:
    with (
        pytest.raises(InputError) as caught,
        exporting("pte", formats, load_contract(healthy / "checkpoint")),
    ):
        raise error
    return str(caught.value)


def test_format_architecture_and_the_way_on_without_it_are_named(healthy: Path) -> None:
    assert raised(healthy, RuntimeError("no\nsuch thing")) == (
        "no .pte can be made of deit_tiny_patch16_224 (RuntimeError: no such thing); to go on "
        "without this format, set `formats: [ptl, onnx]` in params.yaml"
    )


@pytest.mark.parametrize(
    ("words", "operator"),
    [
        ("Missing out variants: {'aten::grid_sampler_2d'}", "aten::grid_sampler_2d"),
        ("No ONNX function found for <OpOverload(op='aten.col2im', ...)>", "aten.col2im"),
        ("Exporting the operator 'aten::roll' to ONNX is not supported", "aten::roll"),
    ],
)
def test_the_operator_is_named_where_the_library_names_it(
    healthy: Path, words: str, operator: str
) -> None:
    assert f"of deit_tiny_patch16_224 because of operator {operator} (" in raised(
        healthy, RuntimeError(words)
    )


def test_the_operator_of_the_error_behind_the_error_is_named(healthy: Path) -> None:
    outer = RuntimeError("export failed")
    outer.__cause__ = KeyError("aten.fft_rfft2.default")
    assert "because of operator aten.fft_rfft2.default (" in raised(healthy, outer)


def test_the_only_format_is_replaced_by_others(healthy: Path) -> None:
    assert "`formats: [ptl, onnx, int8_onnx]`" in raised(healthy, ValueError("x"), ("pte",))


@pytest.mark.parametrize("error", [ParamsError("a key is wrong"), OSError(28, "full")])
def test_errors_that_say_themselves_what_to_do_are_left_alone(
    healthy: Path, error: Exception
) -> None:
    with (
        pytest.raises(type(error)) as caught,
        exporting("pte", ("pte",), load_contract(healthy / "checkpoint")),
    ):
        raise error
    assert caught.value is error


@pytest.mark.full
def test_an_exporter_that_raises_says_so(
    params: Params, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("Operator aten::roll is not Core ATen")

    monkeypatch.setattr(pte, "_lower", fails)
    before = sorted((artifacts / "executorch").iterdir())
    with pytest.raises(InputError, match=r"no \.pte can be made of deit_tiny.* aten::roll .*"):
        run_stages(params, artifacts, "export_executorch")
    assert sorted((artifacts / "executorch").iterdir()) == before
