"""The search space of `tune`: which parameters a recipe has, and what each may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.formats import FORMATS
from pipeline.params import Quantize, Recipe, Rewrite
from pipeline.schemes import SCHEMES

OTHER_NETWORKS = ("per_channel", "per_tensor", "static")  # schemes of what is no transformer
STRENGTHS = (None, 0.25, 0.5, 0.75)
KEPT = (0, 1, 2, 4, 8, 16)  # so many of the ranking's first layers
SEED = 0  # of the rotation

Choice = str | float | bool | None
Values = dict[str, Choice]
Pick = Callable[[str, Sequence[Choice]], Any]  # name, choices -> one of them


@dataclass(frozen=True, kw_only=True)
class Space:
    """The parameters of one file of one model, named as in params.yaml.

    Some depend on others: ``rotate`` is there with ``fold_norm`` only, ``keep_dynamic`` and
    ``rounding`` with some schemes only. ``keep_float`` and ``keep_dynamic`` are how many of the
    first layers of ``ranking`` are meant.
    """

    key: str
    transformer: bool  # has what is rewritten
    ranking: tuple[str, ...]  # layers, best in float first
    fused_attention: bool = False
    rounding: str = "nearest"  # of the files that the search does not look at

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes that the file can have."""
        return FORMATS[self.key].schemes if self.transformer else OTHER_NETWORKS

    @property
    def choices(self) -> dict[str, Sequence[Choice]]:
        """The values of every parameter; the first is the plainest."""
        counts = tuple(count for count in KEPT if count <= len(self.ranking))
        rewrites: dict[str, Sequence[Choice]] = {
            **dict.fromkeys(("fold_norm", "rotate", "centre"), (False, True)),
            **dict.fromkeys(("smooth", "query_key", "value"), STRENGTHS),
        }
        return {
            **(rewrites if self.transformer else {}),
            "scheme": self.schemes,
            "keep_float": counts,
            "keep_dynamic": counts,
            "rounding": ("nearest", "gptq"),
        }

    def assign(self, pick: Pick) -> Values:
        """Let ``pick`` choose the value of each parameter that those before it leave open."""
        values: Values = {}
        for name, choices in self.choices.items():
            if self._applies(name, values):
                values[name] = pick(name, choices)
        return values

    def complete(self, values: Mapping[str, Choice]) -> Values:
        """Return ``values`` without those of no use; the first choice where one is not allowed."""

        def pick(name: str, choices: Sequence[Choice]) -> Choice:
            value = values.get(name, choices[0])
            return value if value in choices else choices[0]

        return self.assign(pick)

    def recipe(self, values: Mapping[str, Choice]) -> Recipe:
        """Return the recipe of ``values``, which may be incomplete."""
        chosen: dict[str, Any] = self.complete(values)
        rewrite = {name: chosen[name] for name in Rewrite.model_fields if name in chosen}
        if "rotate" in rewrite:
            rewrite["rotate"] = SEED if rewrite["rotate"] else None
        scheme, kept = chosen["scheme"], chosen["keep_float"]
        # Dynamic layers are those after the ones in float: a layer is one or the other.
        quantize = Quantize(
            scheme=scheme,
            keep_float=self.ranking[:kept],
            keep_dynamic=self.ranking[kept : kept + chosen.get("keep_dynamic", 0)],
            rounding=chosen.get("rounding", self.rounding),
            fused_attention=self.fused_attention and not SCHEMES[scheme].fixed_ranges,
        )
        return Recipe(Rewrite(**rewrite), quantize)

    def starting_points(self) -> list[Values]:
        """Return what is tried first: each scheme alone, then with rewrites that seldom lose."""
        rewrites: Values = {"fold_norm": True, "centre": True, "query_key": 0.75}
        plain: list[Values] = [{"scheme": scheme} for scheme in self.schemes]
        rewritten = [values | rewrites | {"rounding": "gptq"} for values in plain]
        return [self.complete(v) for v in (*plain, *(rewritten if self.transformer else ()))]

    def neighbours(self, recipe: Recipe) -> list[Values]:
        """Return the values of each recipe that differs from ``recipe`` in one parameter.

        What ``recipe`` has that is not in this space, and what only the change brings in, gets its
        first choice.
        """
        current = self.complete(_values(recipe))
        return [
            self.complete(current | {name: other})
            for name, value in current.items()
            for other in self.choices[name]
            if other != value
        ]

    def _applies(self, name: str, values: Values) -> bool:
        if name == "rotate":
            return bool(values["fold_norm"])
        if name == "keep_dynamic":
            return SCHEMES[str(values["scheme"])].keeps_dynamic
        if name == "rounding":
            return FORMATS[self.key].rounds and not SCHEMES[str(values["scheme"])].fixed_ranges
        return True


def _values(recipe: Recipe) -> Values:
    rewrite, quantize = recipe.rewrite, recipe.quantize
    return rewrite.model_dump() | {
        "rotate": rewrite.rotate is not None,
        "scheme": quantize.scheme,
        "keep_float": len(quantize.keep_float),
        "keep_dynamic": len(quantize.keep_dynamic),
        "rounding": quantize.rounding,
    }
