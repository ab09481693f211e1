"""The tools beside the tests: what `mutate` takes out of a source, and what `tracing` reads of a log."""

from __future__ import annotations

from tests.contracts.tools.mutate import SOURCES, mutants
from tests.contracts.tools.tracing import Tracer

SOURCE = """
// assert (false) throw Err.InAComment;
fun settle(x: int) {
    assert ((x > 0) & f(x)) throw Err.First;
    match (x) {
        1 => { assert (
            g(x)
        ) throw Err.Second; }
        else => { throw Err.Third }
    }
    throw Err.Fourth;
}
"""


def test_each_assert_and_each_throw_is_one_mutant() -> None:
    found = list(mutants(SOURCE, "made.tolk"))
    assert [m.error for m in found] == ["First", "Second", "Third", "Fourth"]
    assert [m.line for m in found] == [4, 6, 9, 11]
    assert [SOURCE[m.start : m.end] for m in found] == [
        "assert ((x > 0) & f(x)) throw Err.First;",
        "assert (\n            g(x)\n        ) throw Err.Second;",
        "throw Err.Third",
        "throw Err.Fourth;",
    ]


def test_every_source_has_its_parentheses_matched() -> None:
    for path in SOURCES.glob("*.tolk"):
        text = path.read_text()
        for mutant in mutants(text, path.name):
            left = text[mutant.start : mutant.end]
            assert left.count("(") == left.count(")")
            assert left.startswith(("assert", "throw"))


def test_places_are_read_from_a_log() -> None:
    tracer = Tracer()
    cell = "AB" * 32
    tracer.on_vm_log(
        f"code cell hash: {cell} offset: 16\nexecute NOP\ncode cell hash: {cell} offset: 24\nexecute NOP\n"
    )
    assert tracer.places == {cell.lower(): {16, 24}}
