"""State machines of a participant, an epoch and a set rotation, as the contracts show them when they are driven.

Nothing here says what should be: each situation is brought about in the emulator, each operation is tried in it,
and what changed becomes an arrow. `python -m tests.contracts.machines` writes the diagrams into
`docs/contracts.md`; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from contracts.commands import CancelProposal
from contracts.model import DAY_S, NANO, CertificateKind, OperatorSet
from contracts.opcodes import Refusal
from tests.contracts.pool_scene import PARTICIPANTS, Scene, Sent, account, leaf
from tests.contracts.registry_cases import OPERATIONS, SITUATIONS, outcome

DOCUMENT = Path(__file__).parents[2] / "docs" / "contracts.md"

Edge = tuple[str, str, str]
Situation = Callable[[Scene], object]
Operation = Callable[[Scene], Sent]


def fresh() -> Scene:
    scene = Scene()
    assert scene.deploy().refusal is None
    scene.hand_over()
    return scene


# ---- a participant ----


def participant_edges() -> list[Edge]:
    """Arrows between an entry's statuses; operations that change no status in any situation are left out."""
    scene, edges = fresh(), [("[*]", "register", "active")]
    for name, situation in SITUATIONS.items():
        for operation, act in OPERATIONS.items():
            owner = account(f"{name}, {operation}")
            situation.arrange(scene, owner)
            before = scene.participant(owner).status.name.lower()
            after = outcome(scene, owner, act(scene, owner))
            if not isinstance(after, Refusal):
                edges.append((before, operation, "[*]" if after is None else after.name.lower()))
    return [edge for edge in edges if edge[0] != edge[2]]


# ---- an epoch: the second one, so that there is one before it ----


def end(scene: Scene) -> None:
    scene.pay(100 * NANO)
    scene.advance(max(0, scene.state().current_end_s - scene.ledger.now))


def finished(count: int, *, settled: int = 0) -> Situation:
    """`count` epochs finalized, the first ones of them settled; all but the first pinned to the operators' set."""

    def arrange(scene: Scene) -> None:
        for _ in range(count):
            scene.finish_epoch()
        for _ in range(settled):
            settle_next(scene)
        scene.pay(100 * NANO)

    return arrange


def settle_next(scene: Scene) -> Sent:
    return scene.settle([leaf(PARTICIPANTS[0], scene.state().landed.total_earned_nanoton + NANO)])


EPOCH_SITUATIONS: dict[str, Situation] = {
    "running": finished(1, settled=1),
    "ended": lambda scene: (finished(1, settled=1)(scene), end(scene)),
    "finalized, the one before unsettled": finished(2),
    "finalized": finished(2, settled=1),
    "settled": finished(2, settled=2),
}
EPOCH_OPERATIONS: dict[str, Operation] = {
    "finalize": lambda scene: scene.finalize(),
    "settle by its own set": settle_next,
}


def epoch_state(scene: Scene) -> str:
    """What the contract says of the second epoch."""
    state = scene.state()
    if state.landed.epoch >= 2:
        return "settled"
    if any(epoch.epoch == 2 for epoch in state.open_epochs):
        return "finalized"
    return "running"


def epoch_edges() -> list[Edge]:
    edges = [("[*]", "the epoch before is finalized", "running")]
    for arrange in EPOCH_SITUATIONS.values():
        for operation, act in EPOCH_OPERATIONS.items():
            scene = fresh()
            arrange(scene)
            before = epoch_state(scene)
            if act(scene).refusal is None and epoch_state(scene) != before:
                edges.append((before, operation, epoch_state(scene)))
    return edges


# ---- a set rotation ----


def next_set(scene: Scene) -> OperatorSet:
    return scene.new_set(scene.domain.set_id + 1)


def proposed(wait_s: Callable[[Scene], int]) -> Situation:
    def arrange(scene: Scene) -> None:
        scene.propose_set(next_set(scene))
        scene.advance(wait_s(scene))

    return arrange


def delay_s(scene: Scene) -> int:
    return scene.pool_state().params.parameter_delay_s


SET_SITUATIONS: dict[str, Situation] = {
    "in charge": lambda scene: None,
    "successor proposed": proposed(lambda scene: 0),
    "successor may take over": proposed(delay_s),
    "proposal too old": proposed(lambda scene: delay_s(scene) + 30 * DAY_S + 1),
}
SET_OPERATIONS: dict[str, Operation] = {
    "propose a successor": lambda scene: scene.propose_set(next_set(scene)),
    "the successor accepts": lambda scene: scene.accept_set(next_set(scene)),
    "cancel": lambda scene: scene.command(
        CancelProposal(gov_seqno=scene.gov_seqno, proposal=CertificateKind.PROPOSE_SET)
    ),
}
WAITING = [
    ("successor proposed", "the parameter delay passes", "successor may take over"),
    ("successor may take over", "30 days pass", "proposal too old"),
]


def set_state(scene: Scene) -> str:
    """What the pool says of the set that was in charge at the start."""
    state = scene.pool_state()
    assert state.operator_set is not None
    if state.operator_set.set_id > 1:
        return "previous, settles its epochs"
    return "successor proposed" if state.pending else "in charge"


def rotation_edges() -> list[Edge]:
    edges = [("[*]", "hand-over, or accepted", "in charge"), *WAITING]
    for situation, arrange in SET_SITUATIONS.items():
        for operation, act in SET_OPERATIONS.items():
            scene = fresh()
            arrange(scene)
            if act(scene).refusal is None:
                edges.append((situation, operation, set_state(scene)))
    return edges


# ---- the diagrams ----

MACHINES: dict[str, Callable[[], list[Edge]]] = {
    "participant": participant_edges,
    "epoch": epoch_edges,
    "rotation": rotation_edges,
}


def diagram(edges: Iterable[Edge]) -> str:
    """A Mermaid state diagram; operations between the same two states share an arrow."""
    labels: dict[tuple[str, str], list[str]] = {}
    for before, label, after in edges:
        known = labels.setdefault((before, after), [])
        if label not in known:
            known.append(label)
    names = sorted({name for arrow in labels for name in arrow} - {"[*]"})
    numbers = {"[*]": "[*]"} | {name: f"s{number}" for number, name in enumerate(names)}
    lines = [f"    {numbers[name]} : {name}" for name in names]
    lines += [f"    {numbers[a]} --> {numbers[b]} : {' / '.join(said)}" for (a, b), said in sorted(labels.items())]
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n"


def documented(text: str) -> str:
    """`text` with each diagram between its markers drawn anew."""
    for name, edges in MACHINES.items():
        block = f"<!-- machine:{name} -->\n{diagram(edges())}<!-- /machine:{name} -->"
        pattern = re.compile(rf"<!-- machine:{name} -->\n.*?<!-- /machine:{name} -->", re.DOTALL)
        text = pattern.sub(lambda _, block=block: block, text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(documented(DOCUMENT.read_text()))
