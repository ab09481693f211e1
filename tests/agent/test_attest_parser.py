"""The command line of `gpupool attest`: every verb leads somewhere, explains itself, and is listed."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest

from agent.attest.parser import VERBS
from agent.cli import main
from agent.verbs import Verb


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_verb_leads_to_a_function(verb: Verb) -> None:
    module, _, name = verb.run.rpartition(".")
    function = getattr(import_module(module), name)
    assert list(inspect.signature(function).parameters) == ["options"]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_verb_explains_itself(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["attest", *verb.name.split(), "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"example:\n  gpupool attest {verb.name} {verb.example}" in said
    assert "--json" in said
    assert ("--config" in said) == verb.has_config


@pytest.mark.parametrize("family", ["", "policy", "collateral"])
def test_the_help_lists_the_verbs(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["attest", *family.split(), "--help"])
    said = capsys.readouterr().out
    for verb in VERBS:
        if verb.name.startswith(family):
            assert f"\n    {verb.name.removeprefix(family).split()[0]}" in said


def test_names_are_given_once() -> None:
    assert len({verb.name for verb in VERBS}) == len(VERBS)


def test_debug_shows_where_an_error_of_attestation_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "quote.bin"
    path.write_bytes(bytes(1000))
    arguments = ["attest", "collateral", "fetch", str(path), "--out", str(path)]
    assert main(arguments) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert main(["--debug", *arguments]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "QuoteVersionError: quote: version 0" in said


def test_debug_goes_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["attest", "show", "quote.bin", "--debug"])
    assert ended.value.code == 2
    assert "--debug goes first: gpupool --debug ..." in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["attest", "verify"], ["attest", "verify", "q"], ["attest"], ["attest", "x"]])
def test_missing_arguments_are_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("gpupool: ")
