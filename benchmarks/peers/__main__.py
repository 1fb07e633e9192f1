"""`make bench-peers`: our files compared with what other toolchains make from the same weights.

Every peer is called as its own documentation says, in an environment of its own that is made on
demand in the cache. Files are made and measured once for the same bytes; times are always taken
again, in turns. A peer that fails is in the table with the reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import bench
from benchmarks.peers.peers import BY_NAME, PEERS
from benchmarks.peers.table import table
from pipeline import paths
from pipeline.errors import exit_on_error
from pipeline.evidence.seal import seal
from pipeline.files import write_json, write_text

ROUNDS = 100


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the peers that the command line names; write and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {' '.join(BY_NAME)}; all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed (%(default)s)")
    parser.add_argument("--artifacts", type=Path, default=paths.ARTIFACTS, help="a run's files")
    parser.add_argument("--into", type=Path, help="where table and evidence go (artifacts/peers)")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.peers if name not in BY_NAME]
    if unknown:
        parser.error(f"no peer {unknown[0]}; there are {' '.join(BY_NAME)}")
    if options.rounds < 0:
        parser.error(f"--rounds must be 0 or more, got {options.rounds}")
    chosen = tuple(peer for peer in PEERS if not options.peers or peer.name in options.peers)
    into = options.into or options.artifacts / "peers"
    with exit_on_error():
        evidence = seal(bench.bench(chosen, options.artifacts, options.rounds))
        write_json(into / "evidence.json", evidence)
        write_text(into / "table.md", table(evidence) + "\n")
        print(table(evidence))


if __name__ == "__main__":
    main()
