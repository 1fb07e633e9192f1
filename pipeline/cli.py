"""The command `edge-vit`. A command's module is imported when it is chosen: help is instant."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "gate": "judge the evidence below artifacts/ and write artifacts/verdict/",
    "summary": "show each file beside float, the verdict and the release",
    "report": "write artifacts/reports/report.html, the evidence as one page",
    "diagnose": "find the layers that lose most, and what restoring each gives back",
    "repair": "find the fewest layers to leave in float that make the gate pass, and their cost",
    "tune": "search for the cheapest files that keep the gate's budgets",
    "predict": "classify pictures with a release",
    "compare": "show what each file makes of one picture, beside float",
    "serve": "answer over HTTP, as hub inference endpoints do",
    "verify": "check that a release is what was published, and decide its verdict again",
    "diff": "show what is other in a release than in an earlier one, and what an app must change",
    "rebuild": "make a release again from what it records, and compare each byte",
    "sign": "sign a release with a private key",
    "keygen": "make a key pair to sign releases with",
    "release": "give a published release its version, for others to fetch",
    "promote": "give a version a stage: candidate or prod",
    "rollback": "give a stage back to the version that had it before",
    "baseline": "record the float model on this machine's GPU, for others to be held against",
}
MODULES = {
    "gate": "pipeline.stages.gate",
    "report": "pipeline.stages.report",
    "tune": "pipeline.tuning.search",
    "diagnose": "pipeline.tuning.diagnose",
    "repair": "pipeline.tuning.repair",
}


def main(arguments: list[str] | None = None) -> None:
    """Run ``edge-vit COMMAND``; exit status 0: done, 1: refused, 2: bad input."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in COMMANDS:
        importlib.import_module(MODULES.get(given[0], f"pipeline.commands.{given[0]}")).main(
            given[1:]
        )
        return
    help_asked = given[:1] in (["-h"], ["--help"])
    print(_help(), file=sys.stdout if help_asked else sys.stderr)
    if not help_asked:
        what = f"unknown command {given[0]!r}" if given else "which command?"
        print(f"\nedge-vit: {what}", file=sys.stderr)
        sys.exit(2)


def _help() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: edge-vit COMMAND [--help]",
            "",
            "Vision transformers for phones, boards and browsers, let out only with proof.",
            "`dvc repro` makes everything; these commands decide on it and show it.",
            "",
            *(f"  {name:{width}}  {words}" for name, words in COMMANDS.items()),
        ]
    )


if __name__ == "__main__":
    main()
