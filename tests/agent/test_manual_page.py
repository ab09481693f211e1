"""The manual page says what the command line says, and roff takes it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from agent.command_line import build_parser
from agent.output import EXIT_CODES
from agent.verbs import walk
from tests.agent.tools.manual_page import page

PAGE = page(1_760_000_000)


def test_every_verb_option_and_exit_code_stands_in_it() -> None:
    text = PAGE.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
    for parser in walk(build_parser()):
        if parser.get_default("run") is not None:
            assert f".SS {parser.prog}\n" in text
            section = text.split(f".SS {parser.prog}\n")[1].split(".SS ")[0]
            shown = set(parser._option_string_actions) - {"-h", "--help"}
            assert all(option in section for option in shown)
    for code, meaning in EXIT_CODES.items():
        assert f".TP\n{code}\n{meaning}" in text


def test_it_is_made_the_same_again() -> None:
    assert page(1_760_000_000) == PAGE
    assert '.TH GPUPOOL 1 2025-10-09 "gpupool-agent ' in PAGE


def test_no_line_is_taken_for_a_request_that_is_none() -> None:
    requests = set(re.findall(r"(?m)^[.'](\S*)", PAGE))
    assert requests <= {"TH", "nh", "ad", "SH", "SS", "TP", "PP", "B", "BR", "IR", "nf", "fi"}


def test_roff_takes_it() -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed: `make man-check` installs it")
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning"], input=PAGE, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
