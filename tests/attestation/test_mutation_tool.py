"""The mutation tool finds every rule, and breaks exactly what it says."""

from __future__ import annotations

import ast
import json
from collections import Counter

from tests.attestation.tools.mutate import REASONS, SOURCES, sources
from tests.attestation.tools.mutations import mutants

SOURCE = b'''
LIMIT = 1 if 2 < 3 else 4

class Reader:
    def read(self, a, b):
        """A comment with a < b and raise."""
        if a < 0 or (b and a <= b < LIMIT):
            raise ValueError(
                "too small"
            )
        self._require_whole(a)
        made = require_nothing(b)
        if a in made:
            made = a
        return made
'''

EXPECTED = [
    ("a < 0 or (b and a <= b < LIMIT)", "(b and a <= b < LIMIT)"),
    ("a < 0 or (b and a <= b < LIMIT)", "(a < 0)"),
    ("a < 0", "a <= 0"),
    ("b and a <= b < LIMIT", "(a <= b < LIMIT)"),
    ("b and a <= b < LIMIT", "b"),
    ("a <= b < LIMIT", "a < b < LIMIT"),
    ("a <= b < LIMIT", "a <= b <= LIMIT"),
    ('raise ValueError( "too small" )', "pass"),
    ("self._require_whole(a)", "pass"),
    ("a in made", "False"),
]


def test_every_rule_of_a_source_is_found() -> None:
    found = [(it.statement, it.replacement) for it in mutants(SOURCE, "made.py")]
    assert sorted(found) == sorted(EXPECTED)


def test_each_mutant_is_another_program() -> None:
    known = {ast.dump(ast.parse(SOURCE))}
    for it in mutants(SOURCE, "made.py"):
        broken = SOURCE[: it.start] + it.inserted.encode() + SOURCE[it.end :]
        assert it.function == "Reader.read"
        assert ast.dump(ast.parse(broken)) not in known
        known.add(ast.dump(ast.parse(broken)))


def test_every_mutant_of_the_package_compiles_and_has_a_name_of_its_own() -> None:
    for name in sources():
        text = (SOURCES / name).read_bytes()
        found = mutants(text, name)
        assert found, name
        assert Counter(it.key for it in found).most_common(1)[0][1] == 1
        for it in found:
            compile(text[: it.start] + it.inserted.encode() + text[it.end :], name, "exec")


def test_every_reason_is_that_of_a_mutant() -> None:
    for name, reasons in json.loads(REASONS.read_text()).items():
        titles = {it.title for it in mutants((SOURCES / name).read_bytes(), name)}
        assert set(reasons) <= titles, f"{name}: the source has changed, and a reason has lost its mutant"
