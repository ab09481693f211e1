"""`gpupool pool reputation-propose`: certificates for the reputation that a settled epoch gives reason for.

Every operator derives the same from what landed: the settlement is read from this agent's journal, held against the
payload hash on chain, and judged by `gossip.reputation`. So whoever is asked to sign one of the files runs the same
command and compares. Each participant has its own certificate, as each has its own number that stops a replay.

1. Nothing is signed or written without --yes; then all files are, or none. Signatures are made, and noted, once
   all files are on disk without them and only lack their names.
2. When an epoch ended is taken from the chain, which tells it of the last settled one alone; of an older one nobody is
   judged offline for being away over several epochs, or in the one in which it joined. Its length is the one that
   epochs have now: one that was prolonged counts as shorter, which charges nobody.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from agent.certificates import CertificateFile, write_new
from agent.config import Config, load_config
from agent.errors import OperationError
from agent.output import EXIT_USAGE, answer, note
from agent.policies import load_policies
from agent.pool.access import with_session
from agent.pool.certificate_view import next_step
from agent.pool.commanding import certificate_file, file_name, signing_set, with_own_signature
from agent.pool.session import PoolSession
from agent.settlements import reading_settlements
from contracts.commands import SetReputation, Target
from contracts.model import OperatorSet, Participant, RewardsState
from gossip.policy import Reputation
from gossip.reputation import EpochSpan, Judgement, judge
from gossip.settlement import Base, Settlement


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledEpoch:
    """What is judged: a settlement that landed, what it builds on, and whose log ended by its own close record."""

    settlement: Settlement
    before: Base
    closed: frozenset[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A judgement with its certificate, and where that is written."""

    judgement: Judgement
    path: Path
    file: CertificateFile


def propose(options: argparse.Namespace) -> int:
    """Show which reputations an epoch gives reason to change; with --yes write, and sign, their certificates."""
    config = load_config(options.config)

    async def act(session: PoolSession) -> int:
        state, rewards = await session.reader.state(), await session.reader.rewards()
        participants = await session.reader.registry()
        epoch = rewards.landed.epoch if options.epoch is None else options.epoch
        settled = await trio.to_thread.run_sync(partial(read_epoch, config, rewards, epoch))
        judged = judge(
            settled.before,
            settled.settlement,
            participants,
            rules_of(config, settled.settlement),
            span=span_of(rewards, epoch),
            closed=settled.closed,
        )
        wanted = [each for each in judged if not (options.losses and each.proposed > each.reputation)]
        outdated = [each for each in wanted if each.is_outdated]
        chosen = [each for each in wanted if not each.is_outdated]
        if not chosen:
            value = _value(epoch, [(each, None) for each in chosen], outdated, done=False)
            return answer(options, value, "\n".join(_lines(epoch, [], outdated)))
        # Reputations are commands of the operators in force, whoever they are about.
        signers = signing_set(state, _command(chosen[0].participant, chosen[0].proposed))
        now_s = await session.now_s()
        drafts = [_draft(session, options, signers, each, now_s) for each in chosen]
        if not options.yes:
            value = _value(epoch, [(draft.judgement, None) for draft in drafts], outdated, done=False)
            answer(options, value, "\n".join(_lines(epoch, chosen, outdated)))
            note("nothing was signed; add --yes to write the certificates, signed by this node key if an operator's")
            return EXIT_USAGE
        written = _write_all(session, options, signers, drafts, now_s)
        value = _value(epoch, [(draft.judgement, draft) for draft in written], outdated, done=True)
        text = [*_lines(epoch, chosen, outdated), *(f"wrote {draft.path}" for draft in written)]
        text.append(next_step(written[0].path, written[0].file, signers))
        return answer(options, value, "\n".join(text))

    return with_session(options, act)


def read_epoch(config: Config, rewards: RewardsState, epoch: int) -> SettledEpoch:
    """The settlement of `epoch`, from this agent's journal, as the chain vouches for it.

    Raises:
        OperationError: the epoch has not settled, or the journal does not lead from what landed to it.
        JournalError, KeyFileError: the journal cannot be read.
    """
    with reading_settlements(config) as kept:
        settlement = kept.chained(rewards.landed.payload_hash, rewards.landed.epoch, epoch)
        before = kept.before(settlement)
        ended = {
            node_key: reading.head
            for node_key, reading in settlement.readings.items()
            if reading.dead and not before.reading(node_key).dead
        }
        closed = frozenset(node_key for node_key, head in ended.items() if kept.is_closed(node_key, head))
    return SettledEpoch(settlement=settlement, before=before, closed=closed)


def rules_of(config: Config, settlement: Settlement) -> Reputation:
    """The steps of the policy by which the epoch was settled. Raises `OperationError` if it is not held here."""
    policy = load_policies(config).get(settlement.payload.policy_hash)
    if policy is None:
        raise OperationError(
            f"epoch {settlement.payload.epoch} was counted by the policy {settlement.payload.policy_hash.hex()}, which "
            "is not here: name its document as pool.policy_file or pool.next_policy_file"
        )
    return policy.reputation


def span_of(rewards: RewardsState, epoch: int) -> EpochSpan | None:
    """When `epoch` ended, and about when it began (rule 2); None for another one than the last that settled."""
    if epoch != rewards.landed.epoch:
        return None
    end_s = rewards.open_epochs[0].start_s if rewards.open_epochs else rewards.current_start_s
    return EpochSpan(start_s=end_s - rewards.epoch_duration_s, end_s=end_s)


def _draft(
    session: PoolSession, options: argparse.Namespace, signers: OperatorSet, judgement: Judgement, now_s: int
) -> Draft:
    made = _command(judgement.participant, judgement.proposed)
    file = certificate_file(session, options, signers, made, now_s)
    return Draft(judgement=judgement, path=options.out_dir / file_name(made), file=file)


def _command(entry: Participant, reputation: int) -> SetReputation:
    target = Target(participant=entry.address, joined_s=entry.joined_s, seqno=entry.seqno + 1)
    return SetReputation(target=target, reputation=reputation)


def _write_all(
    session: PoolSession, options: argparse.Namespace, signers: OperatorSet, drafts: Sequence[Draft], now_s: int
) -> list[Draft]:
    """Sign and write all, or none (rule 1)."""

    def sign(*, keep: bool) -> list[CertificateFile]:
        files = []
        for draft in drafts:
            try:
                files.append(with_own_signature(session, options, draft.file, signers, now_s, keep=keep))
            except OperationError as error:
                raise OperationError(f"{draft.judgement.participant.address}: {error}") from error
        return files

    signed = sign(keep=False)
    write_new([(draft.path, draft.file) for draft in drafts], partial(sign, keep=True))
    return [replace(draft, file=file) for draft, file in zip(drafts, signed, strict=True)]


def _value(
    epoch: int, judged: Sequence[tuple[Judgement, Draft | None]], outdated: Sequence[Judgement], *, done: bool
) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "proposed": [
            {
                **_judgement_value(judgement),
                "file": None if draft is None else str(draft.path),
                "hash": None if draft is None else draft.file.cell.hash.hex(),
                "signed_by": [] if draft is None else [key.hex() for key, _ in draft.file.signatures],
            }
            for judgement, draft in judged
        ],
        "outdated": [{**_judgement_value(each), "current": each.participant.reputation} for each in outdated],
        "done": done,
    }


def _judgement_value(judgement: Judgement) -> dict[str, Any]:
    return {
        "participant": str(judgement.participant.address),
        "node_key": judgement.participant.node_key.hex(),
        "reputation": judgement.reputation,
        "proposed": judgement.proposed,
        "events": [event.name.lower() for event in judgement.events],
    }


def _lines(epoch: int, chosen: Sequence[Judgement], outdated: Sequence[Judgement]) -> list[str]:
    """A line a participant."""
    if not chosen and not outdated:
        return [f"epoch {epoch} gives no reason to change a reputation"]
    lines = [f"epoch {epoch}: {len(chosen)} to propose"]
    lines += [f"  {each.participant.address}  {_step(each)}" for each in chosen]
    if outdated:
        lines.append("changed meanwhile, so nothing is proposed:")
        lines += [
            f"  {each.participant.address}  {_step(each)}; it is {each.participant.reputation} now" for each in outdated
        ]
    return lines


def _step(judgement: Judgement) -> str:
    reasons = ", ".join(event.value for event in judgement.events)
    return f"{judgement.reputation} -> {judgement.proposed}  {reasons}"
