"""The bar of long work: at a terminal, on standard error, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

WORK = """
import argparse
from agent.progress import counted, progress, unknown
with progress(argparse.Namespace(json={json})) as tell:
    tell("checking record")
    assert list(counted(tell, range(500), lambda: 500)) == list(range(500))
    tell("taking rows in")
    assert list(counted(tell, iter("abc"), unknown)) == list("abc")
print("done")
"""


def at_terminal(code: str) -> tuple[str, str]:
    """What a process says on standard output, and on a terminal as standard error."""
    ours, theirs = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:
            pass  # Linux's way to say that nobody holds the other end any more
        assert process.stdout is not None
        said = process.stdout.read()
    os.close(ours)
    return said, shown.decode()


def test_a_person_sees_the_stages_with_counts() -> None:
    said, shown = at_terminal(WORK.format(json=False))
    assert said == "done\n"
    assert "checking record" in shown
    assert "3/?" in shown, "a total that nobody knows"
    assert shown.rstrip().endswith("\x1b[2K"), "the bar is gone at the end"


@pytest.mark.parametrize("json", [True, False])
def test_a_script_sees_nothing(json: bool) -> None:
    done = subprocess.run([sys.executable, "-c", WORK.format(json=json)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_with_json_there_is_none_at_a_terminal_either() -> None:
    assert at_terminal(WORK.format(json=True)) == ("done\n", "")
