"""Random messages by random senders at random times to one pool, and what must hold after each of them.

    python -m tests.contracts.fuzz --seed 1 --steps 2000 [--seeds 10]

Prints what happened how often, so that one sees how deep it went; a failure prints its seed and the shortest
list of steps found that still fails. Every step draws from its seed and number alone, so that leaving steps
out keeps the others' dice. Beside `scene_books` (balances, sums, payouts, TON in = TON out), checked here:

1. A message that is refused changes nothing in the contract that refused it, and its value comes back but for fees.
2. Nothing fails in the action phase.
3. Without the owner's word or a quorum's nobody's stake falls, but by a withdrawal that its owner asked for and gets.
4. Held stake goes back only by quorum, and on to the rewards only after its time.
5. A node key is of one entry, and is replaced by its owner's word alone, and nothing with it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from random import Random

from contracts.model import Address, Participant
from contracts.opcodes import Refusal
from tests.contracts import fuzz_actions, fuzz_commands
from tests.contracts.fuzz_world import PARAMS, Action, World
from tests.contracts.pool_scene import Scene, Sent

FORWARD_FEE_NANOTON = 400_000
"""Of the smallest message."""

ACTIONS = [*fuzz_actions.ACTIONS, *fuzz_commands.ACTIONS]
Counts = Counter[tuple[str, str]]
"""(action, "ok" or the refusal's name) -> how often."""


class FuzzFailure(AssertionError):  # noqa: N818 (it is how a test fails, not an error that anyone handles)
    """Something did not hold. `step` is the number of the step after which it did not."""

    def __init__(self, seed: int, step: int, name: str, cause: BaseException) -> None:
        super().__init__(f"seed {seed}, step {step} ({name}): {cause!r}")
        self.step = step


def run(seed: int, steps: Iterable[int], counts: Counts | None = None) -> Counts:
    """Take these steps of `seed` with a new pool.

    Raises:
        FuzzFailure: an invariant is broken.
    """
    counts = Counter() if counts is None else counts
    world = World(Scene())
    assert world.scene.deploy(PARAMS).refusal is None
    for step in steps:
        world.rng = Random(f"{seed}/{step}")
        world.commanded = False
        weights, actions = zip(*ACTIONS, strict=True)
        chosen: Action = world.rng.choices(actions, weights)[0]
        try:
            outcome = _step(world, chosen)
        except Exception as error:
            raise FuzzFailure(seed, step, chosen.__name__, error) from error
        counts[chosen.__name__, outcome] += 1
    return counts


def _step(world: World, chosen: Action) -> str:
    scene = world.scene
    stakes = _stakes(scene)
    now, hashes = scene.ledger.now, _hashes(scene)
    sent = chosen(world)
    if sent is None:
        return "nothing to do"
    _check_stakes(world, stakes, _stakes(scene), sent, now)
    return _check_refusal(scene, sent, hashes)


def _check_refusal(scene: Scene, sent: Sent, before: dict[Address, bytes]) -> str:
    """ "ok", or the name of the first refusal, after checking that it left everything as it was."""
    seen: set[Address] = set()
    for transaction in sent.transactions:
        assert transaction.action_code in (None, 0), f"action phase failed with {transaction.action_code}"
        if transaction.exit_code not in (None, 0):
            where = transaction.address
            assert where in seen or _hashes(scene)[where] == before[where], "a refusal that changed the state"
            first = sent.transactions[0]
            fees = sum(t.fees_nanoton + sum(out.fwd_fee_nanoton for out in t.out_messages) for t in sent.transactions)
            assert first.in_source is not None
            lost = first.in_value_nanoton - sent.received(first.in_source)
            # What would not pay for its way back stays.
            kept = 0 if transaction.bounce else FORWARD_FEE_NANOTON
            assert lost <= fees + kept, f"{lost} of the value did not come back; fees are {fees}"
            return _name(transaction.exit_code)
        seen.add(transaction.address)
    return "ok"


def _name(exit_code: int) -> str:
    try:
        return Refusal(exit_code).name.lower()
    except ValueError:
        return f"tvm {exit_code}"


def _check_stakes(
    world: World, before: dict[Address, Participant], after: dict[Address, Participant], sent: Sent, now: int
) -> None:
    keys = [entry.node_key for entry in after.values()]
    assert len(set(keys)) == len(keys), "two entries with one node key"
    for owner, was in before.items():
        is_ = after.get(owner)
        if is_ is not None and is_.node_key != was.node_key and is_.joined_s == was.joined_s:
            assert sent.transactions[0].in_source == owner, f"{owner}: somebody else replaced its node key"
            assert is_ == replace(was, node_key=is_.node_key, rotated_s=now), f"{owner}: changed with its node key"
        stake, held = (0, 0) if is_ is None else (is_.stake_nanoton, is_.held_nanoton)
        fell = was.stake_nanoton - stake
        if fell > 0 and not world.commanded:
            assert fell == was.pending_nanoton, f"{owner} lost {fell} without a quorum"
            assert now >= was.withdraw_at_s, f"{owner}: paid before its time"
            assert sent.received(owner) >= fell, f"{owner} asked for {fell} and did not get it"
        if held < was.held_nanoton and not world.commanded:
            assert now >= was.held_until_s, f"{owner}: the held stake was swept before its time"
            assert held == 0, f"{owner}: a part of the held stake was swept"


def _stakes(scene: Scene) -> dict[Address, Participant]:
    return {entry.address: entry for entry in scene.registry_state().participants}


def _hashes(scene: Scene) -> dict[Address, bytes]:
    hashes = {}
    for address in (scene.pool, scene.rewards, scene.registry):
        data = scene.ledger.account(address).data
        assert data is not None
        hashes[address] = bytes(data.hash)
    return hashes


def shrink(steps: Sequence[int], fails: Callable[[Sequence[int]], bool]) -> list[int]:
    """Leave out what the failure does not need: halves first, then quarters, at last single steps."""
    kept, size = list(steps), max(len(steps) // 2, 1)
    while True:
        start = 0
        while start < len(kept):
            fewer = kept[:start] + kept[start + size :]
            if fails(fewer):
                kept = fewer
            else:
                start += size
        if size == 1:
            return kept
        size //= 2


def _fails(seed: int) -> Callable[[Sequence[int]], bool]:
    def fails(steps: Sequence[int]) -> bool:
        try:
            run(seed, steps)
        except FuzzFailure:
            return True
        return False

    return fails


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Random messages to a pool; every invariant after each.")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from the first on (default: 1)")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each seed (default: 2000)")
    options = parser.parse_args(arguments)
    counts: Counts = Counter()
    for seed in range(options.seed, options.seed + options.seeds):
        try:
            run(seed, range(options.steps), counts)
        except FuzzFailure as failure:
            sys.stderr.write(f"{failure}\nlooking for the fewest steps that fail\n")
            fewest = shrink(range(failure.step + 1), _fails(seed))
            sys.stderr.write(f"run({seed}, {fewest}) fails\n")
            return 1
    for (name, outcome), count in sorted(counts.items()):
        sys.stdout.write(f"{name:20} {outcome:24} {count:6}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
