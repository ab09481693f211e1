"""Ten thousand random steps in ten pools, every invariant after each (`tests.contracts.fuzz`), and the fuzzer itself.

A failure names its seed and step; `python -m tests.contracts.fuzz --seed S --steps N` finds the fewest steps.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.contracts import fuzz, fuzz_actions
from tests.contracts.fuzz import Counts, FuzzFailure
from tests.contracts.fuzz_world import World

SEEDS, STEPS = 10, 1000


@pytest.fixture(scope="module")
def counts() -> Counts:
    """What all seeds of this run came to, together."""
    return Counter()


def test_a_short_walk_keeps_every_invariant() -> None:
    walked = fuzz.run(0, range(200))
    assert walked.total() == 200


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_a_long_walk_keeps_every_invariant(counts: Counts, seed: int) -> None:
    before = counts.total()
    fuzz.run(seed, range(STEPS), counts)
    assert counts.total() == before + STEPS


@pytest.mark.slow
@pytest.mark.long
def test_the_walks_went_deep(counts: Counts) -> None:
    if counts.total() < SEEDS * STEPS:
        pytest.skip("only some of the walks were taken")
    succeeded = {name for name, outcome in counts if outcome == "ok"}
    every = {function.__name__ for _, function in fuzz.ACTIONS} - {"forge", "wait"}
    assert succeeded >= every
    assert ("forge", "ok") not in counts
    refusals = {outcome for _, outcome in counts} - {"ok", "nothing to do"}
    assert len(refusals) >= 45


def test_the_same_seed_takes_the_same_steps() -> None:
    assert fuzz.run(7, range(60)) == fuzz.run(7, range(60))


def test_a_broken_invariant_names_seed_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def lie(world: World) -> None:
        world.scene.books.entered += 1

    monkeypatch.setattr(fuzz, "ACTIONS", [(1, fuzz_actions.heartbeat), (1, lie)])
    with pytest.raises(FuzzFailure, match=r"seed 3, step \d+ \(heartbeat\)") as failed:
        fuzz.run(3, range(50))
    with pytest.raises(FuzzFailure):
        fuzz.run(3, range(failed.value.step + 1))


def test_shrinking_keeps_what_fails_and_nothing_else() -> None:
    assert fuzz.shrink(range(100), lambda steps: {17, 64, 65} <= set(steps)) == [17, 64, 65]
