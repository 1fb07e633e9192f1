"""Write artifacts/reports/report.html: the evidence and the verdict as one page.

Judges the evidence itself, as the gate does, so a refused run has its page, too.
"""

from __future__ import annotations

from pipeline import paths
from pipeline.commands.common import command
from pipeline.params import load_params
from pipeline.paths import Recorded
from pipeline.stages.report import report


@command("report", __doc__)
def main() -> None:
    """Write the report of the run."""
    print(f"report: {report(load_params(), paths.ARTIFACTS, Recorded(), paths.REPORTS)}")


if __name__ == "__main__":
    main()
