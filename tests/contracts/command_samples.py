"""One command of every kind, and parameters out of range: what tests try in every place."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from pytoniq_core import Cell

from contracts import layout
from contracts.commands import (
    AcceptSet,
    CancelProposal,
    CancelSlash,
    Close,
    Command,
    FeesTo,
    OwnerMessage,
    Pause,
    ProposeParams,
    ProposeSet,
    ProposeUpgrade,
    Remove,
    Resume,
    SetMetadata,
    SetRegistration,
    SetReputation,
    Slash,
    SlashReason,
    Suspend,
    Target,
)
from contracts.model import (
    NANO,
    ZERO_HASH,
    CertificateKind,
    Operator,
    OperatorSet,
    PoolMetadata,
    PoolParams,
    UpgradeTarget,
)
from tests.contracts.pool_scene import (
    ANYONE,
    PARAMS,
    PARTICIPANTS,
    TERMS,
    Scene,
    node_key,
)
from tests.contracts.unchecked import unchecked


def target(scene: Scene, seqno: int = 1) -> Target:
    """The first participant, who is registered."""
    return Target(participant=PARTICIPANTS[0], joined_s=scene.participant(PARTICIPANTS[0]).joined_s, seqno=seqno)


def slash(scene: Scene, seqno: int = 1) -> Slash:
    return Slash(target=target(scene, seqno), amount_nanoton=0, reason=SlashReason.FORK, evidence_hash=ZERO_HASH)


def commands(scene: Scene) -> list[Command]:
    """One of every kind, each with the nonce that it would need now."""
    seqno = scene.gov_seqno
    next_set = OperatorSet(set_id=2, operators=(Operator(node_key=node_key(PARTICIPANTS[0]).public, weight=1),))
    return [
        scene.payload([]),
        slash(scene),
        CancelSlash(target=target(scene)),
        SetReputation(target=target(scene), reputation=400),
        Remove(target=target(scene)),
        Suspend(target=target(scene), suspended=True),
        ProposeSet(gov_seqno=seqno, set_hash=layout.operator_set_cell(next_set).hash),
        AcceptSet(operator_set=next_set),
        ProposeParams(gov_seqno=seqno, params=PARAMS),
        Pause(gov_seqno=seqno),
        Resume(gov_seqno=seqno),
        Close(gov_seqno=seqno),
        ProposeUpgrade(gov_seqno=seqno, target=UpgradeTarget.POOL, code_hash=ZERO_HASH),
        CancelProposal(gov_seqno=seqno, proposal=CertificateKind.PROPOSE_SET),
        FeesTo(gov_seqno=seqno, recipient=ANYONE, amount_nanoton=1),
        OwnerMessage(gov_seqno=seqno, dest=ANYONE, value_nanoton=NANO, body=Cell.empty()),
        SetRegistration(gov_seqno=seqno, open=False),
        SetMetadata(gov_seqno=seqno, metadata=PoolMetadata(name="another")),
    ]


def command_of(scene: Scene, kind: CertificateKind) -> Command:
    return next(command for command in commands(scene) if command.kind == kind)


def every(kinds: Iterable[CertificateKind]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", list(kinds), ids=lambda kind: kind.name.lower())


def params(**over: object) -> PoolParams:
    """Parameters with any of their own, their terms' or their rules' attributes out of range."""
    terms = {name: value for name, value in over.items() if hasattr(TERMS, name)}
    rules = {name: value for name, value in over.items() if hasattr(PARAMS.rules, name)}
    rest = {name: value for name, value in over.items() if name not in terms | rules}
    return unchecked(PARAMS, terms=unchecked(TERMS, **terms), rules=unchecked(PARAMS.rules, **rules), **rest)
