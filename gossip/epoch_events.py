"""The alphabet of the epoch's close: what can happen to the machine, and what it can ask for.

Values only. `gossip.epoch_close` turns events into actions; the node's shell performs them in order.

Source: PROTOCOL, "Epoch close".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from contracts.model import Landed, OpenEpoch, OperatorSet, Signature
from gossip.messages import Attest, Observation, Proposal
from gossip.settlement import Settlement
from gossip.tally import EpochFrame

Message: TypeAlias = Observation | Proposal | Attest


def maker_of(message: Message) -> bytes:
    """Node key of the operator that signed the message."""
    return message.leader if isinstance(message, Proposal) else message.operator


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainView:
    """The contracts at a finalized block whose time is `now_s`."""

    now_s: int
    current_epoch: int
    current_end_s: int
    open_epochs: tuple[OpenEpoch, ...]
    landed: Landed


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectId:
    """Something that peers serve by its 32-byte id: "observation", "checkpoint" or "attachment"."""

    kind: str
    id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A masterchain block that evidence names; whether it exists only the chain can say."""

    seqno: int
    root_hash: bytes
    time_s: int


# Events.


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """A new finalized block. `operators` are today's.

    `frame` is that of the oldest open epoch, if one is open and may be settled; its operators may be others.
    """

    view: ChainView
    operators: OperatorSet
    frame: EpochFrame | None
    witnessed_s: Mapping[bytes, int]
    """Cumulative seconds in which this node heard from each participant, by node key."""
    worker_tokens: Mapping[bytes, int] = field(default_factory=dict)
    """Cumulative tokens that the chain paid each participant's worker contract, by node key, where it was read."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A verified message of an operator (one's own included, when read back from the journal)."""

    message: Message


@dataclass(frozen=True, slots=True)
class RecordsArrived:
    """Records came in: what waited for them is looked at again."""


@dataclass(frozen=True, slots=True)
class DataArrived:
    """Attachments, or the word on an anchor, came in: whatever waited for such a thing is looked at again."""


@dataclass(frozen=True, slots=True)
class CheckpointArrived:
    """A verified checkpoint of the settlement that landed."""

    settlement: Settlement


Event: TypeAlias = Advanced | Heard | RecordsArrived | DataArrived | CheckpointArrived


# Actions, performed in order; a Persist that fails stops the process before anything after it happens.


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """Make these durable in one transaction: messages of `epoch`, or the settlement that landed for it.

    `outcome` is the settlement that an attest among the messages stands for: it may land at any time, and then
    somebody has to have it still, even if all who attested were restarted.
    """

    epoch: int
    messages: tuple[Message, ...] = ()
    outcome: Settlement | None = None
    landed: Settlement | None = None


@dataclass(frozen=True, slots=True)
class Publish:
    """Send to the pool's topic. It may be lost."""

    message: Message


@dataclass(frozen=True, slots=True)
class Finalize:
    """Send the permissionless finalize message for this epoch."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Send this certificate of set `set_id` to the pool, unless the epoch is settled by now."""

    settlement: Settlement
    set_id: int
    signatures: tuple[Signature, ...]
    turn: int
    """How many turns, of all operators, have gone by without its landing: the message brings more each time."""


@dataclass(frozen=True, slots=True)
class Settled:
    """This settlement has landed and is the base from now on."""

    settlement: Settlement


@dataclass(frozen=True, slots=True)
class Refused:
    """A proposal that does not hold: counted by reason, nothing else happens."""

    proposal: Proposal
    reason: str


Action: TypeAlias = Persist | Publish | Finalize | Submit | Settled | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the open epoch stands, for people: weights are those of the operator set."""

    epoch: int
    view: int | None
    operators: int
    observations: int
    """How many operators' observations are here."""
    proposals: int
    has_observed: bool
    has_attested: bool
    attested_weight: int
    total_weight: int
    certified: bool
    waiting_for: int
    leader: bytes | None = None
    """Node key of the operator who leads `view`."""
    unseen: tuple[bytes, ...] = ()
    """Node keys of the operators of whom no observation is here."""
    unattested: tuple[bytes, ...] = ()
    """Node keys of the operators of whom no attest is here for what most of the weight attested."""
