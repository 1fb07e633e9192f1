"""Choose among the state dicts of a file the one that a network takes, without what wraps its keys.

Training scripts write averaged weights beside the others, a teacher beside its student, and put
prefixes before every key.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, ParamsError, first_of, shown
from pipeline.models.build import adapt

if TYPE_CHECKING:
    import torch

State = dict[str, "torch.Tensor"]

# What timm's `load_checkpoint` takes first: averages of the weights, then the weights.
TIMM_ORDER = ("state_dict_ema", "model_ema", "state_dict", "model", "")
AVERAGES = TIMM_ORDER[:2]
# Modules that FSDP, activation checkpointing and `torch.compile` put around others.
WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\."
)
FITS = 0.5  # of the network's keys that must be there, to tell its weights from others
MAX_KEY = 1000  # characters of a key in which a prefix is looked for
SHOWN = 3


@dataclass(frozen=True)
class Fitted:
    """The weights that a network takes, by timm's names."""

    state: State
    adapted: State  # as timm loads it into the network
    place: str | None  # where in the file they are, if it has others that fit
    notes: tuple[str, ...]  # what was done, for the log


@dataclass(frozen=True)
class _Candidate:
    place: str
    prefix: str
    state: State
    adapted: State
    keys: int  # of the network's that it has
    left_out: tuple[str, ...]


def fit(
    states: Mapping[str, State], model: Any, source: str, *, weights: str | None = None
) -> Fitted:
    """Return the weights of ``states`` that ``model`` takes; it may be an outline.

    ``weights`` is the place of the weights to take, where several fit.

    Raises:
        ParamsError: there is no such place, or several fit and nobody says which to take.
        InputError: none fits; the message shows keys of both.
    """
    names = model.state_dict().keys()
    candidates = [c for place in states for c in _candidates(place, states[place], model)]
    fitting = [c for c in candidates if c.keys >= FITS * len(names)]
    if not fitting:
        raise _misfit(candidates, names, source)
    chosen = _choose(fitting, source, weights)
    several = len(fitting) > 1
    notes = []
    if several:
        what = "averaged weights" if chosen.place in AVERAGES else "weights"
        others = first_of([c.place for c in fitting if c is not chosen], SHOWN)
        notes.append(
            f"{what} of {shown(chosen.place)} are taken, not those of {others}; model.weights "
            "chooses others"
        )
    if chosen.prefix:
        notes.append(f"{shown(chosen.prefix)} is taken off the front of its keys")
    if chosen.left_out:
        some = first_of(chosen.left_out, SHOWN)
        notes.append(f"{len(chosen.left_out)} tensors beside the network are left out: {some}")
    place = chosen.place if several else None
    return Fitted(chosen.state, chosen.adapted, place, tuple(notes))


def _candidates(place: str, state: State, model: Any) -> Iterator[_Candidate]:
    """Yield the weights of one place without each prefix that so many of its keys have."""
    unwrapped = {WRAPPERS.sub("", key): value for key, value in state.items()}
    names = model.state_dict().keys()
    prefixes = _prefixes(unwrapped, names) or [""]
    for prefix in prefixes:
        others = tuple(p for p in prefixes if p and p != prefix and p.startswith(prefix))
        inside = {
            key.removeprefix(prefix): value
            for key, value in unwrapped.items()
            if key.startswith(prefix) and not key.startswith(others)
        }
        adapted = adapt(inside, model)
        known = len(names & adapted.keys())
        left_out = tuple(key for key in unwrapped if key.removeprefix(prefix) not in inside)
        where = place
        if prefix and left_out:
            where = ".".join(part for part in (place, prefix.rstrip(".")) if part)
        yield _Candidate(where, prefix, inside, adapted, known, left_out)


def _prefixes(state: State, names: Collection[str]) -> list[str]:
    """Return what stands before the network's names in the keys, where most names have it."""
    counts: dict[str, int] = {}
    for key in state:
        at = 0 if len(key) <= MAX_KEY else len(key)
        while True:
            if key[at:] in names:
                counts[key[:at]] = counts.get(key[:at], 0) + 1
            if (dot := key.find(".", at)) < 0:
                break
            at = dot + 1
    return [prefix for prefix, count in counts.items() if count >= FITS * len(names)]


def _choose(fitting: list[_Candidate], source: str, weights: str | None) -> _Candidate:
    by_place = {c.place: c for c in fitting}
    listed = first_of([c.place or "the file itself" for c in fitting], SHOWN)
    if weights is not None:
        if weights not in by_place:
            raise ParamsError(
                f"params.yaml: model.weights: {source} has no fitting weights {weights!r}, but "
                f"{listed}"
            )
        return by_place[weights]
    if len(fitting) == 1:
        return fitting[0]
    if len(by_place) == len(fitting) and by_place.keys() <= set(TIMM_ORDER):
        return next(by_place[place] for place in TIMM_ORDER if place in by_place)
    raise ParamsError(
        f"params.yaml: model.weights is missing: {source} has several weights that fit, {listed}; "
        "set it to the one to take"
    )


def _misfit(candidates: list[_Candidate], names: Collection[str], source: str) -> InputError:
    best = max(candidates, key=lambda c: (c.keys, len(c.state)))
    theirs = [key for key in best.state if key not in names] or list(best.state)
    ours = [name for name in names if name not in best.state]
    return InputError(
        f"{source} does not fit the model: its keys are as "
        f"{first_of(theirs, SHOWN)}, the model's as {first_of(ours, SHOWN)} "
        f"({best.keys} of {len(names)} are there). Check "
        "model.checkpoint and model.architecture in params.yaml"
    )
