"""The ways to cheat: what the owner of one GPU, or of two nodes, truly does and what it claims.

Each is compared with the same owner, hardware and work told honestly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pool_fixture import key

from contracts.signing import SigningKey
from tests.cheating.world import EPOCH_S, OPERATORS, RATE, WINDOW_S, Node, Stretch

WINDOWS = EPOCH_S // WINDOW_S
Play = Callable[[Stretch, int], Stretch]
"""(the window as it would be if all were honest, its number in the epoch) -> as it is and as it is told."""


def _as_it_was(stretch: Stretch, _number: int) -> Stretch:
    return stretch


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheat:
    """One way. The owner's `nodes` are named by their (machine, GPU); each plays the same with its part of the work."""

    text: str
    play: Play = _as_it_was
    nodes: Sequence[tuple[bytes, bytes]] = ((b"machine", b"gpu"),)
    honest_nodes: Sequence[tuple[bytes, bytes]] = ((b"machine", b"gpu"),)
    """Those that the owner has if all is honest."""
    honest_play: Play | None = None
    """What it truly did, told honestly; None: the work of every other host."""
    liars: int = 0
    forger: SigningKey | None = None
    pots_ton: Sequence[int] = (100, 100, 100, 100)
    replays: bool = False
    holds_back: bool = False
    """Windows of odd epochs are recorded in the even ones that follow."""

    def made(self) -> list[Node]:
        return _nodes(self.nodes)

    def honest(self) -> Cheat:
        """The same, with nothing done or claimed that is not so."""
        return Cheat(text="", play=self.honest_play or _as_it_was, nodes=self.honest_nodes, pots_ton=self.pots_ton)


def _nodes(named: Sequence[tuple[bytes, bytes]]) -> list[Node]:
    return [Node(OPERATORS + i, machine, gpu) for i, (machine, gpu) in enumerate(named)]


def _off_half(stretch: Stretch, number: int) -> Stretch:
    return replace(stretch, is_up=False, served=0, claims=False) if number % 2 else stretch


def _off_half_but_claimed(stretch: Stretch, number: int) -> Stretch:
    return replace(stretch, is_up=False, served=0, claimed=stretch.served) if number % 2 else stretch


def _late_half(stretch: Stretch, number: int) -> Stretch:
    return replace(stretch, is_up=False, served=0, claims=False) if number < WINDOWS // 2 else stretch


def _late_half_but_claimed(stretch: Stretch, number: int) -> Stretch:
    return replace(stretch, is_up=False, served=0, claimed=stretch.served) if number < WINDOWS // 2 else stretch


def _slow(stretch: Stretch, _number: int) -> Stretch:
    return replace(stretch, latency_ms=(5_000, 20_000, 30_000))


_TWO = ((b"machine", b"gpu"), (b"other machine", b"other gpu"))

CHEATS: Mapping[str, Cheat] = {
    "inflate tokens": Cheat(
        text="claims ten times the tokens that it served",
        play=lambda stretch, _: replace(stretch, claimed=10 * stretch.served),
    ),
    "inflate tasks": Cheat(
        text="claims a hundred times the requests that it answered",
        play=lambda stretch, _: replace(stretch, claimed_tasks=100 * stretch.served // 200),
    ),
    "idle": Cheat(
        text="serves nobody; a fake engine claims what an honest host serves (compared with that host)",
        play=lambda stretch, _: replace(stretch, served=0, claimed=RATE * WINDOW_S),
    ),
    "fake uptime": Cheat(
        text="is off in every second window and claims them all",
        play=_off_half_but_claimed,
        honest_play=_off_half,
    ),
    "fake latency": Cheat(
        text="answers in 20 s (p95) and claims 1.5 s",
        play=_as_it_was,
        honest_play=_slow,
    ),
    "replay windows": Cheat(text="puts every window into its log twice", replays=True),
    "backdate": Cheat(
        text="comes up in the middle of the epoch and claims it from the beginning",
        play=_late_half_but_claimed,
        honest_play=_late_half,
    ),
    "clone a machine": Cheat(
        text="two nodes on one machine, each claiming all of its work",
        nodes=((b"machine", b"gpu"), (b"machine", b"gpu")),
    ),
    "clone a GPU": Cheat(
        text="two machines that show the same GPU, each claiming all of its work",
        nodes=((b"machine", b"gpu"), (b"other machine", b"gpu")),
    ),
    "forge receipts": Cheat(
        text="claims ten times the tokens, with receipts by a key of its own",
        play=lambda stretch, _: replace(stretch, claimed=10 * stretch.served),
        forger=key(1000),
    ),
    "collude (2 of 7 operators)": Cheat(
        text="is off in every second window; two operators swear that it was up, and was paid",
        play=_off_half_but_claimed,
        honest_play=_off_half,
        liars=2,
    ),
    "collude (3 of 7 operators)": Cheat(
        text="the same with three: more than a third, which the protocol does not promise to withstand",
        play=_off_half_but_claimed,
        honest_play=_off_half,
        liars=3,
    ),
    "withhold": Cheat(
        text="records the first epoch's work in the second, whose pot is three times as large",
        pots_ton=(100, 300, 100, 300),
        holds_back=True,
    ),
    "sybil split": Cheat(
        text="two machines with a GPU each as two nodes that share the work of one (compared with one node)",
        play=lambda stretch, _: replace(stretch, served=stretch.served // 2),
        nodes=_TWO,
    ),
}
