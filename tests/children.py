"""Processes that tests start and that would run on by themselves."""

from __future__ import annotations

# Before a command: it ends with the process that starts it, also where that one is killed.
ENDING_WITH_TESTS = ("setpriv", "--pdeathsig", "KILL")
