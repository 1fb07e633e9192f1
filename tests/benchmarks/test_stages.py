from __future__ import annotations

import importlib.util
import shlex

from benchmarks.stages import stage_commands


def test_each_stage_up_to_latency_has_a_command_that_exists() -> None:
    commands = stage_commands()
    assert [*commands][:2] == ["fetch", "samples"]
    assert [*commands][-1] == "latency"
    for command in commands.values():
        python, flag, module = shlex.split(command)[-3:]
        assert (python, flag) == ("python", "-m")
        assert importlib.util.find_spec(module), module
