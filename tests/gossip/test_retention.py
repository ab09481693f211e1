"""Memory and what is said do not grow with the number of epochs that were settled, nor with a stall."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from types import FunctionType, ModuleType

from pool_fixture import Pool, run_epoch, write_work

from gossip import sync
from gossip.errors import InvalidMessageError
from gossip.node import OTHER_REASON, REASONS_MAX, Node
from gossip.settlement import encode_checkpoint

EPOCHS = 30


def size_of(*roots: object) -> int:
    """Bytes of everything that can be reached from here, but for code."""
    seen: set[int] = set()
    left = list(roots)
    total = 0
    while left:
        thing = left.pop()
        if id(thing) in seen or isinstance(thing, (type, ModuleType, FunctionType)):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        left += gc.get_referents(thing)
    return total


def test_what_a_machine_keeps_stays_level_over_many_epochs() -> None:
    pool = Pool(4)
    sizes: list[tuple[int, int, int]] = []
    for _ in range(EPOCHS):
        write_work(pool)
        run_epoch(pool)
        agent = pool.agents[0]
        checkpoint = encode_checkpoint(agent.settled[-1])
        agent.settled.clear()
        heads = {node_key: agent.logs[node_key].head for node_key in agent.logs}
        sizes.append((size_of(agent.machine), len(checkpoint), len(sync.encode_heads(heads))))
    for early, late in zip(sizes[2], sizes[-1], strict=True):
        assert late < early * 1.1


def test_a_stalled_epoch_keeps_no_more_messages_the_longer_it_lasts() -> None:
    pool = Pool(4)
    write_work(pool)
    pool.down = {0, 1}
    sizes = []
    for step in range(400):
        pool.step(seconds=20)
        if step % 100 == 99:
            pool.exchange()
            machine = pool.agents[2].machine
            sizes.append(size_of(machine._round, machine._readiness, machine._early, machine._logs))
    assert pool.chain.landed.epoch == 0
    assert sizes[-1] < sizes[0] * 1.1


def test_the_reasons_for_which_messages_are_dropped_are_bounded() -> None:
    node = Node.__new__(Node)
    node.drops = Counter()
    for i in range(3 * REASONS_MAX):
        node.drop("record", InvalidMessageError(f"reason {i}"))
    assert len(node.drops) == REASONS_MAX + 1
    assert node.drops[OTHER_REASON] == 2 * REASONS_MAX
