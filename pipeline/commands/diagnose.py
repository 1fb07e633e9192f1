"""Rank the quantized layers by what leaving each in float gives back.

For each layer: the answers, right answers and SQNR that restoring it alone gives back to the model,
for how many bytes. --format names the file; of all but the first format it is made once for each
layer, which takes minutes: --layers chooses some. Of the .ptl also the SQNR of each layer's output
when it is fed what float feeds it. Needs a run up to that file and stage reference.

With --fix, for a run that the gate refused: finds a small set of layers that must stay in float so
that what failed passes, measured on images that neither the gate nor calibration uses, and makes
the files to show their cost. Nothing in artifacts/ but artifacts/tuning is changed.
"""

from __future__ import annotations

import sys

import click

from pipeline import paths
from pipeline.commands.common import COUNT, command
from pipeline.formats import FORMATS, quantized
from pipeline.params import load_params
from pipeline.release.judge import judge
from pipeline.tuning.diagnose import SAMPLES, diagnose_file
from pipeline.tuning.repair import SAMPLES as FIX_SAMPLES
from pipeline.tuning.repair import repair
from pipeline.verdict.criterion import FAIL


@command("diagnose", __doc__)
@click.option("--fix", is_flag=True, help="Find the layers to leave in float.")
@click.option(
    "--samples", type=COUNT, help=f"Images.  [default: {SAMPLES}, with --fix {FIX_SAMPLES}]"
)
@click.option(
    "--format",
    "key",
    type=click.Choice(list(FORMATS)),
    default=quantized()[0],
    help="The file whose layers are ranked; --fix takes those that failed.",
)
@click.option("--layers", default="*", metavar="PATTERN", help="Such as 'blocks.5.*'.")
def main(fix: bool, samples: int | None, key: str, layers: str) -> None:
    """Rank the layers, or find those to leave in float."""
    if fix:
        _fix(samples or FIX_SAMPLES, layers)
        return
    out = paths.ARTIFACTS / "diagnosis"
    count = samples or SAMPLES
    print(diagnose_file(load_params(), paths.ARTIFACTS, out, key, count, layers))
    print(f"\nwritten to {out}")


def _fix(samples: int, layers: str) -> None:
    params = load_params()
    verdict = judge(params, paths.ARTIFACTS, paths.Recorded()).verdict
    if not verdict.count(FAIL):
        print("nothing failed: there is nothing to fix", file=sys.stderr)
        return
    print(repair(params, paths.ARTIFACTS, verdict.criteria, samples, layers))


if __name__ == "__main__":
    main()
