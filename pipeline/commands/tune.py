"""Search for the cheapest files of one format that keep the gate's budgets.

Tries rewrites, schemes and the layers left in float, for fewer instructions on ARM64 (modelled),
smaller size and higher SQNR at once. Each trial makes its file and measures it on images that
neither the gate nor calibration uses. Trials are kept in artifacts/tuning/trials.db: run it again,
and the search resumes. At the end the files of all formats are made by the best recipes; the one to
take is printed as lines for params.yaml, and the present one is replaced only by a gain of at least
0.25 dB SQNR at equal cost. Time and memory are left to the gate. Needs the extra "tune".
"""

from __future__ import annotations

import click

from pipeline import paths
from pipeline.commands.common import COUNT, command
from pipeline.formats import quantized
from pipeline.params import load_params
from pipeline.tuning.search import MINUTES, SAMPLES, TRIALS, tune


@command("tune", __doc__)
@click.option(
    "--format", "key", type=click.Choice(quantized()), default=quantized()[0], help="Format."
)
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), default=MINUTES, help="Minutes at most."
)
@click.option("--trials", type=COUNT, default=TRIALS, help="Trials in all.")
@click.option("--samples", type=COUNT, default=SAMPLES, help="Images to measure on.")
def main(key: str, minutes: float, trials: int, samples: int) -> None:
    """Print the recipe that the search recommends."""
    params = load_params()
    print(tune(params, paths.ARTIFACTS, key, count=samples, max_trials=trials, minutes=minutes))


if __name__ == "__main__":
    main()
