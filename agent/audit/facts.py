"""The chain's word on an epoch, proven from kept bytes: what its settlement had to start from, and what landed.

Untrusted: the chain part of a bundle. Nobody is asked.

1. Every header is of the block that it stands for, of the pool's network; each number stands once.
2. Every account is proven from one of these blocks, and is the contract that it should be: by code hash, and by who
   points at whom.
3. The registry is that of the first block that is not older than the epoch's finalization: the block before it, which
   its header names, is older.
4. Just before the epoch settled it was the oldest open one, which fixes its span, pot, policy and operators; and what
   had landed before it is its base. In the block after, it is what landed last.

5. A block is an earlier one of the masterchain that another is of, if the next one names it, or the state after a later
   one lists it. `Facts.roots` are those of which neither is shown here: they have to be believed.

Source: PROTOCOL, "Words" and "Epoch close"; `contracts.reader`, `gossip.pinning`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pytoniq_core import Cell

from agent.audit.bundle import ChainPart
from agent.errors import AgentError
from contracts import certificate, layout
from contracts.chain_values import Block
from contracts.layout import ContractName
from contracts.model import (
    Address,
    CertificateDomain,
    Landed,
    OpenEpoch,
    OperatorSet,
    Participant,
    PoolState,
    RewardsState,
    SettlePayload,
)
from gossip.epoch_events import Anchor
from gossip.pinning import settling_set
from gossip.policy import PoolPolicy
from gossip.records import PoolId
from gossip.tally import EpochFrame


class AuditFailedError(AgentError):
    """Something in a bundle does not hold; `findings` names each place, one line each."""

    def __init__(self, *findings: str) -> None:
        super().__init__("; ".join(findings[:3]))
        self.findings = findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the chain fixed for one epoch, what had landed before it, and what landed for it."""

    opened: OpenEpoch
    operators: OperatorSet
    participants: tuple[Participant, ...]
    before: Landed
    landed: Landed
    blocks: Mapping[int, Block]
    """By number."""
    roots: tuple[Block, ...]
    """The blocks whose place in the masterchain nothing here shows, ascending."""

    def frame(self, policy: PoolPolicy) -> EpochFrame:
        """What the tally needs of it; `policy` is the one that was pinned."""
        return EpochFrame(
            epoch=self.opened.epoch,
            start_s=self.opened.start_s,
            end_s=self.opened.end_s,
            pot_nanoton=self.opened.pot_nanoton,
            operators=self.operators,
            policy=policy,
            participants=self.participants,
        )

    def certificate_hash(self, pool: PoolId, payload: SettlePayload) -> bytes:
        """What the epoch's operators sign for `payload` (32 bytes)."""
        domain = CertificateDomain(global_id=pool.network, pool=Address(0, pool.account), set_id=self.operators.set_id)
        return bytes(certificate.settle_certificate(domain, payload).hash)

    def is_shown(self, anchor: Anchor) -> bool:
        """Whether the anchor is one of the blocks."""
        block = self.blocks.get(anchor.seqno)
        return block is not None and (block.root_hash, block.time_s) == (anchor.root_hash, anchor.time_s)


def prove(part: ChainPart, pool: PoolId, epoch: int) -> Facts:
    """Believe what a chain part says of `epoch`.

    Raises:
        AuditFailedError: a rule does not hold.
        ContractsError: a proof does not hold, or a contract's storage is none.
    """
    blocks, before = _blocks(part, pool)
    contracts = _Contracts(part, pool, blocks)
    state, opened_at = contracts.pool(part.open_seqno), contracts.block(part.open_seqno)
    rewards = contracts.rewards(part.open_seqno, state)
    oldest = min(rewards.open_epochs, key=lambda each: each.epoch, default=None)
    if oldest is None or oldest.epoch != epoch or rewards.landed.epoch != epoch - 1:
        raise AuditFailedError(f"block {part.open_seqno}: epoch {epoch} is not the next one to settle there")
    operators = settling_set(oldest, state, opened_at.time_s)
    if operators is None:
        raise AuditFailedError(f"block {part.open_seqno}: no operator set can settle epoch {epoch} there")
    landed = contracts.rewards(part.landed_seqno, state).landed
    if landed.epoch != epoch or part.landed_seqno <= part.open_seqno:
        raise AuditFailedError(f"block {part.landed_seqno}: it does not show epoch {epoch} as the last that settled")
    _require_first(part.registry_seqno, oldest.finalized_s, blocks, before)
    return Facts(
        opened=oldest,
        operators=operators,
        participants=contracts.participants(part.registry_seqno, state),
        before=rewards.landed,
        landed=landed,
        blocks=blocks,
        roots=_roots(part, blocks, before),
    )


def _blocks(part: ChainPart, pool: PoolId) -> tuple[dict[int, Block], dict[int, bytes]]:
    """The blocks by number, and the hash of the block before each (rule 1)."""
    blocks: dict[int, Block] = {}
    before: dict[int, bytes] = {}
    for header in part.headers:
        block, previous = header.believe()
        if block.global_id != pool.network:
            raise AuditFailedError(f"block {block.seqno}: of network {block.global_id}, the pool's is {pool.network}")
        if block.seqno in blocks:
            raise AuditFailedError(f"block {block.seqno}: stands twice")
        blocks[block.seqno], before[block.seqno] = block, previous
    return blocks, before


def _roots(part: ChainPart, blocks: Mapping[int, Block], before: Mapping[int, bytes]) -> tuple[Block, ...]:
    """The blocks of which no later one here shows that it builds on them (rule 5), ascending."""
    shown = {seqno - 1: root_hash for seqno, root_hash in before.items()}
    for link in part.links:
        source = blocks.get(link.source)
        if source is None or link.target >= link.source:
            raise AuditFailedError(f"block {link.source}: no link leads from it back to {link.target}")
        shown[link.target] = link.believe(source)
    for seqno, root_hash in shown.items():
        if seqno in blocks and blocks[seqno].root_hash != root_hash:
            raise AuditFailedError(f"block {seqno}: a later block builds on {root_hash.hex()}, another one stands here")
    return tuple(block for seqno, block in sorted(blocks.items()) if seqno not in shown)


def _require_first(seqno: int, time_s: int, blocks: Mapping[int, Block], before: Mapping[int, bytes]) -> None:
    """Raise unless this is the first block of `time_s` or later (rule 3)."""
    block, previous = blocks.get(seqno), blocks.get(seqno - 1)
    if block is None or previous is None or before[seqno] != previous.root_hash:
        raise AuditFailedError(f"block {seqno}, of the registry: it and the block before it are not both here")
    if not previous.time_s < time_s <= block.time_s:
        raise AuditFailedError(
            f"block {seqno}, of the registry, is of {block.time_s}, the one before it of {previous.time_s}: not the "
            f"first one since the epoch was finalized, at {time_s}"
        )


class _Contracts:
    """The pool's contracts in the kept accounts (rule 2)."""

    def __init__(self, part: ChainPart, pool: PoolId, blocks: Mapping[int, Block]) -> None:
        self._kept = {(kept.address, kept.seqno): kept for kept in part.accounts}
        self._pool = Address(0, pool.account)
        self._blocks = blocks

    def block(self, seqno: int) -> Block:
        if seqno not in self._blocks:
            raise AuditFailedError(f"block {seqno}: its header is missing")
        return self._blocks[seqno]

    def pool(self, seqno: int) -> PoolState:
        return layout.read_pool(self._data(self._pool, "pool_operator", seqno))

    def rewards(self, seqno: int, state: PoolState) -> RewardsState:
        found = layout.read_rewards(self._data(state.rewards, "reward_distribution", seqno))
        self._require_own({"pool": (found.pool, self._pool), "registry": (found.registry, state.registry)}, "rewards")
        return found

    def participants(self, seqno: int, state: PoolState) -> tuple[Participant, ...]:
        found = layout.read_registry(self._data(state.registry, "participant_registry", seqno))
        self._require_own({"pool": (found.pool, self._pool)}, "registry")
        return found.participants

    def _data(self, address: Address, name: ContractName, seqno: int) -> Cell:
        what = name.replace("_", " ")
        kept = self._kept.get((address, seqno))
        if kept is None:
            raise AuditFailedError(f"{what} {address}: its state at block {seqno} is missing")
        account = kept.believe(self.block(seqno))
        if account.data is None or account.code_hash != layout.code(name).hash:
            raise AuditFailedError(f"{what} {address}: another contract, or none, stands there at block {seqno}")
        return account.data

    @staticmethod
    def _require_own(pairs: Mapping[str, tuple[Address, Address]], what: str) -> None:
        for name, (found, expected) in pairs.items():
            if found != expected:
                raise AuditFailedError(f"{what}: belongs to the {name} {found}, not to {expected}")


def to_believe(facts: Facts, confirmed: Iterable[tuple[int, bytes]]) -> tuple[Block, ...]:
    """The blocks whose place in the masterchain is still to be believed, beside the `confirmed` (number, root hash).

    Raises:
        AuditFailedError: another block than the confirmed one, or none, stands here under its number.
    """
    known = dict(confirmed)
    for seqno, root_hash in known.items():
        block = facts.blocks.get(seqno)
        if block is None or block.root_hash != root_hash:
            found = "none" if block is None else block.root_hash.hex()
            raise AuditFailedError(f"block {seqno}: {root_hash.hex()} was given, the bundle has {found}")
    return tuple(block for block in facts.roots if block.seqno not in known)
