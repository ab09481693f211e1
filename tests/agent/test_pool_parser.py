"""The command line of `gpupool pool`: every verb leads somewhere, explains itself, and keeps its promises."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from agent.cli import main
from agent.command_line import build_parser
from agent.pool.verb import GROUPS, Needs, Verb
from agent.pool.verbs import VERBS
from agent.pool.verbs_of_power import PROPOSALS, SLASH_REASONS, UPGRADE_TARGETS


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_verb_leads_to_a_function(verb: Verb) -> None:
    module, _, name = verb.run.partition(".")
    function = getattr(import_module(f"agent.pool.{module}"), name)
    assert list(inspect.signature(function).parameters) == ["options"]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_verb_explains_itself(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pool", *verb.name.split(), "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"example:\n  gpupool pool {verb.name}" in said
    assert "--json" in said
    assert ("--dry-run" in said) == bool(verb.needs & Needs.SENDS)


def test_the_help_lists_every_verb_once_by_who_uses_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pool", "--help"])
    said = capsys.readouterr().out
    assert all(f"\n{title}:\n" in said for title in GROUPS.values())
    for verb in VERBS:
        assert said.count(f"\n  {verb.name} ") == 1
        assert verb.summary in said
    assert max(map(len, said.splitlines())) <= 80


def test_names_are_given_once() -> None:
    names = [verb.name for verb in VERBS]
    assert len(set(names)) == len(names)
    assert {verb.group for verb in VERBS} == set(GROUPS)


def test_what_stands_in_the_table_is_what_the_contracts_know() -> None:
    from agent.pool.governance import KINDS, TARGETS
    from contracts.commands import SlashReason

    assert tuple(reason.name.lower() for reason in SlashReason) == SLASH_REASONS
    assert tuple(TARGETS) == UPGRADE_TARGETS
    assert set(PROPOSALS) == set(KINDS)


def test_the_names_of_before_still_work() -> None:
    parse = build_parser().parse_args
    assert parse(["pool", "register", "--stake", "1"]).verb == "pool register"
    assert parse(["pool", "hand-over", "--yes"]).yes is True
    assert parse(["pool", "claim", "--participant", "x"]).participant == "x"
    assert parse(["pool", "status", "--json"]).json is True
