"""Rank the quantized layers by what they lose, and by what leaving each in float gives back.

For each layer: the SQNR of its output when it is fed what float feeds it, and the answers, right
answers and SQNR that restoring it alone gives back to the model, for how many bytes. Needs a run up
to the stages quantize and reference.

With --fix, for a run that the gate refused: finds a small set of layers that must stay in float so
that what failed passes, measured on images that neither the gate nor calibration uses, and makes
the files to show their cost. Nothing in artifacts/ but artifacts/tuning is changed.
"""

from __future__ import annotations

import sys

import click

from pipeline import paths
from pipeline.commands.common import COUNT, command
from pipeline.params import load_params
from pipeline.release.judge import judge, load_evidence
from pipeline.tuning.diagnose import SAMPLES, diagnose
from pipeline.tuning.repair import SAMPLES as FIX_SAMPLES
from pipeline.tuning.repair import repair
from pipeline.verdict.criterion import FAIL


@command("diagnose", __doc__)
@click.option("--fix", is_flag=True, help="Find the layers to leave in float.")
@click.option(
    "--samples", type=COUNT, help=f"Images.  [default: {SAMPLES}, with --fix {FIX_SAMPLES}]"
)
@click.option("--layers", default="*", metavar="PATTERN", help="Such as 'blocks.5.*'.")
def main(fix: bool, samples: int | None, layers: str) -> None:
    """Rank the layers, or find those to leave in float."""
    if fix:
        _fix(samples or FIX_SAMPLES, layers)
        return
    out = paths.ARTIFACTS / "diagnosis"
    print(diagnose(paths.ARTIFACTS, out, samples or SAMPLES, layers))
    print(f"\nwritten to {out}")


def _fix(samples: int, layers: str) -> None:
    params = load_params()
    verdict = judge(params, paths.ARTIFACTS, load_evidence(paths.ARTIFACTS, paths.Recorded()))
    if not verdict.count(FAIL):
        print("nothing failed: there is nothing to fix", file=sys.stderr)
        return
    print(repair(params, paths.ARTIFACTS, verdict.criteria, samples, layers))


if __name__ == "__main__":
    main()
