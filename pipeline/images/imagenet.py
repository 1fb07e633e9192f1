"""ImageNet-1k's classes, from timm's package data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache


@cache
def imagenet_labels() -> tuple[str, ...]:
    """Return ImageNet-1k's 1000 class names in the models' order, from timm's package data.

    Two of them are the same word ("crane", the bird and the machine); WordNet ids tell them apart.
    """
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo().label_descriptions())


@cache
def imagenet_wordnet_ids() -> tuple[str, ...]:
    """Return ImageNet-1k's 1000 WordNet ids ("n01440764"), in the models' order."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo().label_names())


def is_imagenet(labels: Sequence[str]) -> bool:
    """Whether labels are ImageNet-1k's in the models' order, though shortened or half renamed.

    More than half of them must share a word of WordNet's with the class at their place; of labels
    in another order hardly one does.
    """
    known = imagenet_labels()
    if len(labels) != len(known):
        return False
    pairs = zip(labels, known, strict=True)
    return 2 * sum(bool(_words(label) & _words(words)) for label, words in pairs) > len(known)


def _words(label: str) -> set[str]:
    return {word.strip().replace("_", " ").casefold() for word in label.split(",")}
