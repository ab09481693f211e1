"""`contracts/gas.json` says what is measured, to the last unit of gas: whoever changes a figure changes the table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contracts import gas_table

SECTIONS: dict[str, dict[str, Any]] = json.loads(gas_table.TABLE.read_text())
SIZES = [10, 1000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.long])]
CHANGED = "if that is meant: make gas, and look at the difference"


def changes(section: str, name: str | None, measured: dict[str, Any]) -> list[str]:
    """What is measured otherwise than the table says, or stands in one of them alone."""
    stored = SECTIONS[section] if name is None else SECTIONS[section][name]
    alone = [f"{key}: only in the table or only measured" for key in sorted(stored.keys() ^ measured.keys())]
    return [*alone, *gas_table.differences(measured, stored)]


def test_the_main_path() -> None:
    assert changes("main path, 10 participants, 4 operators", None, gas_table.main_path()) == [], CHANGED


@pytest.mark.parametrize(("signers", "operators"), gas_table.QUORUMS)
def test_certificates(signers: int, operators: int) -> None:
    name = f"{signers} of {operators}"
    assert changes("certificates, signers of operators", name, gas_table.certificates(signers, operators)) == [], (
        CHANGED
    )


@pytest.mark.parametrize("size", SIZES)
def test_the_registry(size: int) -> None:
    assert changes("registry, participants", str(size), gas_table.registry(size)) == [], CHANGED


@pytest.mark.parametrize("size", SIZES)
def test_the_rewards_contract(size: int) -> None:
    assert changes("rewards, participants", str(size), gas_table.rewards(size)) == [], CHANGED


@pytest.mark.parametrize("size", SIZES)
def test_storage(size: int) -> None:
    assert changes("storage, participants", str(size), gas_table.storage(size)) == [], CHANGED


def test_a_changed_figure_is_told_by_its_place() -> None:
    told = gas_table.differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}})
    assert [*told] == ["a / c: 2, the table says None"]
