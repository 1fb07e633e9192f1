"""How ranges for static int8 are found: from what was seen, and by what the model answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.quantization.ranges import EXACT, NORMS, Histogram, Range, choose


def seen(*tensors):
    values = Histogram()
    for look in (values.extend, values.count):
        for tensor in tensors:
            look(tensor)
    return values


def lost(found, tensor, norm=2.0):
    return float((found.error(tensor.double().numpy()) ** norm).sum())


@pytest.fixture
def heavy():
    """Histogram like those of activations: nearly all small, a few a hundred times as large."""
    generator = torch.Generator().manual_seed(0)
    bulk = torch.randn(100_000, generator=generator)
    return torch.cat([bulk, torch.tensor([100.0, -80.0])])


def test_codes_are_those_of_pytorch(heavy):
    found = Range.between(-3.0, 5.0)
    code = torch.quantize_per_tensor(heavy, found.scale, found.zero_point, torch.quint8)
    expected = (code.dequantize().double() - heavy.double()).abs().numpy()
    assert np.allclose(found.error(heavy.double().numpy()), expected, atol=1e-5)


@pytest.mark.parametrize("bounds", [(-1.0, 2.0), (0.0, 3.0), (-3.0, 0.0), (-1e-9, 7.0), (0.0, 0.0)])
def test_zero_is_exact_in_every_range(bounds):
    found = Range.between(*bounds)
    assert 0 <= found.zero_point <= 255
    assert found.scale > 0
    assert found.error(np.zeros(1)) == 0


def test_each_norm_finds_the_range_that_loses_least_in_it(heavy):
    ranges = seen(heavy).ranges()
    for norm in NORMS[:-1]:
        losses = {other: lost(found, heavy, norm) for other, found in ranges.items()}
        # A histogram's bin is coarse, so a neighbour may be a little better in truth.
        assert losses[norm] <= 1.02 * min(losses.values())


def test_the_search_cuts_what_is_rare_and_the_higher_the_norm_the_less(heavy):
    ranges = seen(heavy).ranges()
    scales = [ranges[norm].scale for norm in NORMS]
    assert scales == sorted(scales)
    assert scales[-1] == pytest.approx(180 / 255)
    uniform = torch.linspace(-1, 1, 10_000)
    assert seen(uniform).ranges()[2.0].scale == pytest.approx(2 / 255, rel=0.02)


def test_a_search_over_ever_rarer_values_beats_the_extremes(heavy):
    frequent = torch.cat([heavy[:-2].repeat(50), heavy[-2:]])
    ranges = seen(frequent).ranges()
    assert lost(ranges[2.0], frequent) < 0.5 * lost(ranges[np.inf], frequent)


def test_what_was_seen_in_parts_counts_as_a_whole(heavy):
    whole, parts = seen(heavy), seen(*heavy.split(7000))
    assert np.array_equal(whole.counts, parts.counts)
    assert whole.counts.sum() == len(heavy)
    assert whole.ranges() == parts.ranges()


def test_counts_stay_exact_beyond_what_float32_holds():
    many = torch.zeros(1, dtype=torch.float32).expand(EXACT + 3)
    found = seen(torch.tensor([1.0]), many)
    assert found.counts.sum() == EXACT + 4


@pytest.mark.parametrize("constant", [0.0, 5.0, -5.0])
def test_a_constant_is_kept(constant):
    tensor = torch.full((100,), constant)
    for found in seen(tensor).ranges().values():
        assert lost(found, tensor) < 1e-9


def test_the_model_s_answers_choose_one_norm_for_all(heavy, capsys):
    known = {"a": seen(heavy), "b": seen(heavy * 3)}
    wanted = {name: values.ranges()[3.0] for name, values in known.items()}
    asked = []

    def error(ranges):
        asked.append(ranges)
        return sum(abs(found.scale - wanted[name].scale) for name, found in ranges.items())

    assert choose(known, error) == wanted
    assert len(asked) == len(NORMS)
