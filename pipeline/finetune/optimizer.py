"""Optimizers and the learning rate schedule: linear warm-up, then half a cosine."""

from __future__ import annotations

import math

import torch
from torch import nn

from pipeline.finetune.params import Optimizer, Phase

UNDECAYED = ("pos_embed", "cls_token", "dist_token", "reg_token")


def lr_at(step: int, steps: int, phase: Phase) -> float:
    """Return the learning rate of ``step`` (0-based) of a phase of ``steps``."""
    warmup = round(phase.warmup_fraction * steps)
    if step < warmup:
        return phase.lr * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    return phase.lr_end + (phase.lr - phase.lr_end) * 0.5 * (1 + math.cos(math.pi * done))


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: not to biases, norms, positions and tokens."""
    return parameter.ndim > 1 and not name.endswith(UNDECAYED)


def is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon takes this weight: matrices between the embedding and the head."""
    return parameter.ndim == 2 and "blocks." in name


def optimizers(model: nn.Module, options: Optimizer) -> list[torch.optim.Optimizer]:
    """Make the optimizers; each group's ``lr_ratio`` scales the phase's learning rate."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    muon = [p for n, p in named if options.name == "muon" and is_hidden(n, p)]
    taken = {id(p) for p in muon}
    rest = [(n, p) for n, p in named if id(p) not in taken]
    groups = [
        {"params": [p for n, p in rest if decays(n, p)], "weight_decay": options.weight_decay},
        {"params": [p for n, p in rest if not decays(n, p)], "weight_decay": 0.0},
    ]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], betas=options.betas, fused=True)
    ]
    if muon:
        made.append(
            torch.optim.Muon(
                muon, weight_decay=options.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
        )
    for optimizer in made:
        ratio = options.muon_lr_ratio if isinstance(optimizer, torch.optim.Muon) else 1.0
        for group in optimizer.param_groups:
            group["lr_ratio"] = ratio
    return made


def set_lr(optimizers: list[torch.optim.Optimizer], lr: float) -> None:
    """Set the learning rate of every parameter group, scaled by its ``lr_ratio``."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_ratio"]
