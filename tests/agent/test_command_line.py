"""The tree of verbs: each leads somewhere, explains itself, and answers in JSON."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

import pytest

from agent.cli import main
from agent.command_line import build_parser
from agent.verbs import walk

WITHOUT_JSON = {
    "gpupool run": "it answers nothing: its log is JSON where it is read by machines",
    "gpupool completions": "a script is its answer",
}
PARSERS = list(walk(build_parser()))
VERBS = [parser for parser in PARSERS if parser.get_default("run") is not None]


def by_prog(parser: argparse.ArgumentParser) -> str:
    return parser.prog


@pytest.mark.parametrize("parser", VERBS, ids=by_prog)
def test_a_verb_has_an_example_that_it_takes(parser: argparse.ArgumentParser) -> None:
    title, _, example = str(parser.epilog).partition("\n")
    assert title == "example:"
    assert example.startswith(f"  {parser.prog}")


@pytest.mark.parametrize("parser", VERBS, ids=by_prog)
def test_a_verb_answers_in_json_or_there_is_a_reason(parser: argparse.ArgumentParser) -> None:
    assert ("--json" in parser._option_string_actions) != (parser.prog in WITHOUT_JSON)


@pytest.mark.parametrize("parser", PARSERS, ids=by_prog)
def test_every_word_has_a_help(parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*parser.prog.split()[1:], "--help"])
    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (0, "")
    assert said.out.startswith("usage: gpupool")
    assert "%(" not in said.out


@pytest.mark.parametrize("parser", VERBS, ids=by_prog)
def test_every_argument_is_explained(parser: argparse.ArgumentParser) -> None:
    unexplained = [action.dest for action in parser._actions if not action.help]
    assert not unexplained


@pytest.mark.parametrize("parser", VERBS, ids=by_prog)
def test_a_verb_leads_to_a_function(parser: argparse.ArgumentParser) -> None:
    run = parser.get_default("run")
    target = dict(zip(run.__code__.co_freevars, (cell.cell_contents for cell in run.__closure__), strict=True))
    assert callable(getattr(import_module(target["module"]), target["name"]))


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        (["status", "--config", "none.toml", "--json"], "config", 2),
        (["status", "--json", "--loud"], "usage", 2),
        (["dance", "--json"], "usage", 2),
        (["attest", "show", "--json", "short.bin"], "operation", 1),
        (["audit", "verify", "--json", "short.bin"], "invalid_bundle", 1),
    ],
)
def test_an_error_in_json(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    error: str,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.bin").write_bytes(b"\x00\x01")
    try:
        ended = main(arguments)
    except SystemExit as exit_:
        ended = int(str(exit_.code))
    said = capsys.readouterr()
    value = json.loads(said.out)
    assert (ended, value["exit_code"]) == (code, code)
    assert value["error"] == error
    assert said.err.startswith("gpupool: ")
    assert said.err.count("\n") == 1


def test_an_error_in_the_program_in_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> str:
        raise ZeroDivisionError("no")

    monkeypatch.setattr("agent.about.version_text", broken)
    assert main(["version", "--json"]) == 70
    value = json.loads(capsys.readouterr().out)
    assert value == {"error": "unexpected", "message": "unexpected ZeroDivisionError: no", "exit_code": 70}


def test_standard_input_is_read_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "verify", "-", "--collateral", "-"]) == 2
    assert "standard input can be read once" in capsys.readouterr().err
