"""ImageNet-1k's classes, from timm's package data."""

from __future__ import annotations

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
