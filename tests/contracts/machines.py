"""State machines of a participant, an epoch and a set rotation, as the contracts show them when they are driven.

Nothing here says what should be: each situation is brought about in the emulator, each operation is tried in it,
and what changed becomes an arrow. `python -m tests.contracts.machines` writes the diagrams into
`docs/contracts.md`; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from contracts.commands import CancelProposal
from contracts.model import DAY_S, NANO, CertificateKind, OperatorSet, ParticipantStatus
from contracts.opcodes import Refusal
from tests.contracts.pool_scene import PARTICIPANTS, Scene, Sent, account, leaf
from tests.contracts.registry_cases import OPERATIONS, SITUATIONS, Outcome, outcome

DOCUMENT = Path(__file__).parents[2] / "docs" / "contracts.md"

LOST_S = 3 * DAY_S

Edge = tuple[str, str, str]
Situation = Callable[[Scene], object]
Operation = Callable[[Scene], Sent]


def fresh() -> Scene:
    scene = Scene()
    assert scene.deploy().refusal is None
    scene.hand_over()
    return scene


@dataclass(frozen=True, slots=True)
class Came:
    """What came of an operation in a situation."""

    situation: str
    operation: str
    before: str
    refusal: Refusal | None
    after: str


def drive(
    situations: Mapping[str, Situation], operations: Mapping[str, Operation], state: Callable[[Scene], str]
) -> list[Came]:
    """Each operation in each situation, each time in a pool of its own."""
    came = []
    for situation, arrange in situations.items():
        for operation, act in operations.items():
            scene = fresh()
            arrange(scene)
            before = state(scene)
            refusal = act(scene).refusal
            came.append(Came(situation, operation, before, refusal, state(scene)))
    return came


# ---- a participant ----


@cache
def participant_outcomes(situation: str) -> dict[str, tuple[ParticipantStatus, Outcome]]:
    """For each operation the status before it, and what came of it; each on an entry of its own in one pool."""
    scene, came = fresh(), {}
    for operation, act in OPERATIONS.items():
        owner = account(operation)
        SITUATIONS[situation].arrange(scene, owner)
        before = scene.participant(owner).status
        came[operation] = (before, outcome(scene, owner, act(scene, owner)))
    return came


def participant_edges() -> list[Edge]:
    """Arrows between an entry's statuses; what is done at once is drawn as what is done in time."""
    edges = [("[*]", "register", "active")]
    for situation in SITUATIONS:
        for operation, (before, after) in participant_outcomes(situation).items():
            if not isinstance(after, Refusal) and after != before and not operation.endswith("at once"):
                edges.append((before.name.lower(), operation, "[*]" if after is None else after.name.lower()))
    return edges


# ---- an epoch: the second one, so that there is one before it ----


def finished(count: int, *, settled: int = 0) -> Situation:
    """`count` epochs finalized, the first ones of them settled; all but the first pinned to the operators' set."""

    def arrange(scene: Scene) -> None:
        for _ in range(count):
            scene.finish_epoch()
        for _ in range(settled):
            settle_next(scene)
        scene.pay(100 * NANO)

    return arrange


def ended(scene: Scene) -> None:
    finished(1, settled=1)(scene)
    scene.advance(max(0, scene.state().current_end_s - scene.ledger.now))


def settle_next(scene: Scene, *, set_id: int | None = None) -> Sent:
    return scene.settle([leaf(PARTICIPANTS[0], scene.state().landed.total_earned_nanoton + NANO)], set_id=set_id)


def settle_by_newer_set(scene: Scene) -> Sent:
    newer = scene.rotate()
    scene.advance(LOST_S)
    return settle_next(scene, set_id=newer.set_id)


EPOCH_SITUATIONS: dict[str, Situation] = {
    "running": finished(1, settled=1),
    "ended": ended,
    "finalized, the one before unsettled": finished(2),
    "finalized": finished(2, settled=1),
    "settled": finished(2, settled=2),
}
EPOCH_OPERATIONS: dict[str, Operation] = {
    "finalize": lambda scene: scene.finalize(),
    "settle by its own set": settle_next,
    "settle by a newer set, three days later": settle_by_newer_set,
}


def epoch_state(scene: Scene) -> str:
    """What the contract says of the second epoch."""
    state = scene.state()
    if state.landed.epoch >= 2:
        return "settled"
    if any(epoch.epoch == 2 for epoch in state.open_epochs):
        return "finalized"
    return "running"


@cache
def epoch_outcomes() -> list[Came]:
    return drive(EPOCH_SITUATIONS, EPOCH_OPERATIONS, epoch_state)


def epoch_edges() -> list[Edge]:
    edges = [("[*]", "the epoch before is finalized", "running")]
    edges += [(came.before, came.operation, came.after) for came in epoch_outcomes() if came.refusal is None]
    return [edge for edge in edges if edge[0] != edge[2]]


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


@cache
def rotation_outcomes() -> list[Came]:
    return drive(SET_SITUATIONS, SET_OPERATIONS, set_state)


def rotation_edges() -> list[Edge]:
    """Time tells some situations apart, not the pool: arrows begin at the situation."""
    edges = [("[*]", "hand-over, or accepted", "in charge"), *WAITING]
    edges += [(came.situation, came.operation, came.after) for came in rotation_outcomes() if came.refusal is None]
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


@cache
def diagrams() -> dict[str, str]:
    return {name: diagram(edges()) for name, edges in MACHINES.items()}


def documented(text: str) -> str:
    """`text` with each diagram between its markers drawn anew."""
    for name, drawn in diagrams().items():
        block = f"<!-- machine:{name} -->\n{drawn}<!-- /machine:{name} -->"
        pattern = re.compile(rf"<!-- machine:{name} -->\n.*?<!-- /machine:{name} -->", re.DOTALL)
        text = pattern.sub(lambda _, block=block: block, text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    diagrams()  # takes its time: the document is read after it, not to write over what was changed meanwhile
    DOCUMENT.write_text(documented(DOCUMENT.read_text()))
