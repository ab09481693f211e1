"""The heads that an asker lacks: told by range, and computed anew only where a head changed."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip import heads, sync
from gossip.heads import HeadIndex
from gossip.log_chain import Head

KEYS = st.binary(min_size=32, max_size=32)
HEADS = st.dictionaries(KEYS, st.builds(Head, st.integers(0, 2**63 - 1), KEYS), max_size=20)
RANGES = st.sampled_from([None, 1, 4, 256])


@given(HEADS, HEADS, RANGES)
def test_heads_that_differ_are_told_and_equal_ranges_are_not(
    mine: dict[bytes, Head], theirs: dict[bytes, Head], ranges: int | None
) -> None:
    told = HeadIndex().differing(mine, sync.digest_heads(theirs, ranges))
    assert told.items() <= mine.items()
    assert {key for key, head in mine.items() if theirs.get(key) != head} <= told.keys()
    assert HeadIndex().differing(mine, sync.digest_heads(mine, ranges)) == {}


@given(st.lists(HEADS, min_size=2, max_size=4), RANGES, RANGES)
def test_whatever_changes_in_between_the_answer_is_that_of_a_new_index(
    steps: list[dict[bytes, Head]], one: int | None, other: int | None
) -> None:
    index = HeadIndex()
    for now, asked in itertools.pairwise(steps):
        for ranges in (one, other):
            digests = sync.digest_heads(asked, ranges)
            assert index.differing(now, digests) == HeadIndex().differing(now, digests)


def many() -> dict[bytes, Head]:
    return {hashlib.sha256(bytes([i % 256, i // 256])).digest(): Head(7, bytes(32)) for i in range(1000)}


def test_one_head_of_many_that_differs_costs_little() -> None:
    held = many()
    digests = sync.digest_heads(held)
    moved = held | {next(iter(held)): Head(8, bytes(32))}
    assert len(digests) == sync.HEAD_RANGES_MAX * sync.RANGE_DIGEST_BYTES
    assert len(HeadIndex().differing(moved, digests)) < 20


def test_a_digest_is_computed_once_until_a_head_of_its_range_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []

    def counted(part: dict[bytes, Head]) -> bytes:
        computed.append(len(part))
        return sync.digest_range(part)

    monkeypatch.setattr(heads, "digest_range", counted)
    index, held = HeadIndex(), many()
    digests = sync.digest_heads(held)
    for _ in range(3):
        assert index.differing(held, digests) == {}
    assert len(computed) == sync.HEAD_RANGES_MAX
    held[next(iter(held))] = Head(8, bytes(32))
    assert index.differing(held, digests)
    assert len(computed) == sync.HEAD_RANGES_MAX + 1
    held.pop(next(iter(held)))
    assert index.differing(held, bytes(sync.RANGE_DIGEST_BYTES)) == held
    assert len(computed) == sync.HEAD_RANGES_MAX + 2  # one range of all keys
