"""Replaces the node key of a registered agent: the registry first, the files after it.

1. The new key is made first, beside the old one (`node.key.next`), durable before anybody hears of it.
2. How far a rotation got is never remembered, but read: which key the registry names, which files are there. So one
   that was cut short anywhere is finished by the next run.
3. An operator's key is refused while it stands in the set in force: its vote would be lost. The set is changed first.
4. The files change places once the registry names the new key, and while no agent runs (the journal's lock). Nothing is
   overwritten: key, journal and ledger of the old key stay under `.old-` and its first 8 hex digits.
5. The new journal knows the log of the new key: it is empty, as that key never signed a record.
6. What epochs brought and what was paid is the wallet's, whatever node key earned it: the new ledger begins with it.

Source: `contracts/src/rotation.tolk`; docs/adr/0034.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import trio

from agent import journal_file
from agent.config import Config
from agent.errors import ForeignJournalError, JournalError, KeyFileError, OperationError
from agent.files import give_to_folders_owner, sync_folder
from agent.identity import create_key, load_key
from agent.ledger import ledger_file, open_ledger
from agent.ledger_reader import read_ledger
from agent.output import note
from agent.pool.participant import to_registry
from agent.pool.sending import Operation
from agent.pool.session import PoolSession
from agent.pool.values import utc
from agent.setup import new_journal
from agent.trace import new_query_id
from contracts import layout
from contracts.certificate import prove_possession
from contracts.model import Participant
from contracts.signing import SigningKey
from gossip.records import PoolId

POLL_S = 2.0
SHOWN_S = 60.0
_SQLITE_FILES = ("", "-wal", "-shm")


class AgentRunsError(OperationError):
    """The registry names the new key, and an agent still runs with the old one: the files change once it is stopped."""


async def rotation(session: PoolSession, entry: Participant, new: SigningKey) -> Operation:
    """The message that replaces the node key of this entry, the wallet's own.

    Raises:
        OperationError: the key is an operator's, is registered already, or was replaced lately.
        ContractsError: the chain does not answer.
    """
    state = await session.reader.state()
    operators = state.operator_set
    if operators is not None and operators.index_of(entry.node_key) is not None:
        raise OperationError(_OPERATOR.format(set_id=operators.set_id, old=entry.node_key.hex(), new=new.public.hex()))
    await require_time(session, entry)
    if any(new.public == each.node_key for each in await session.reader.registry()):
        raise OperationError(f"the node key {new.public.hex()} is registered already")
    proof = prove_possession(new, global_id=session.global_id, pool=session.pool, owner=entry.address)
    body = layout.rotate_node_key_body(new.public, proof, query_id=new_query_id())
    return await to_registry(session, body, "the rotation")


async def require_time(session: PoolSession, entry: Participant) -> None:
    """Raise `OperationError` if the entry's node key was replaced too short a time ago."""
    wait_s = (await session.reader.state()).params.rules.withdrawal_delay_s
    if entry.rotated_s and await session.now_s() < entry.rotated_s + wait_s:
        raise OperationError(
            f"this entry's node key was replaced {utc(entry.rotated_s)}, and that is done; it can be again from "
            f"{utc(entry.rotated_s + wait_s)} on"
        )


async def loss(session: PoolSession, *, at_epoch_end: bool) -> str:
    """What is lost if the key is replaced now, or right after the running epoch has settled.

    Raises:
        ContractsError: the chain does not answer.
    """
    rewards = await session.reader.rewards()
    if at_epoch_end:
        return (
            f"it is waited until epoch {rewards.current_epoch}, which ends {utc(rewards.current_end_s)}, has settled; "
            "what this node does from that end until the new key is in use will not count"
        )
    return (
        f"what this node did since {utc(rewards.current_start_s)}, when epoch {rewards.current_epoch} began, will not "
        f"count: an epoch counts the logs of the keys that are registered at its end. With --at-epoch-end it is waited "
        f"until that epoch, which ends {utc(rewards.current_end_s)}, has settled; the agent goes on running meanwhile"
    )


async def epoch_settled(session: PoolSession) -> None:
    """Wait until the epoch that runs now has settled; nothing of what was done in it depends on the old key then.

    Raises:
        ContractsError: the chain does not answer.
    """
    running = (await session.reader.rewards()).current_epoch
    while True:
        if (await session.reader.rewards()).landed.epoch >= running:
            return
        await trio.sleep(POLL_S)


async def shown(session: PoolSession, new: SigningKey) -> None:
    """Wait until the proven registry names the new key for this wallet.

    Raises:
        OperationError: it does not within `SHOWN_S`; the next run sees whether it did.
        ContractsError: the chain does not answer.
    """
    with trio.move_on_after(SHOWN_S):
        while True:
            entries = await session.reader.registry()
            if any(entry.node_key == new.public and entry.address == session.wallet.address for entry in entries):
                return
            await trio.sleep(POLL_S)
    raise OperationError("the registry does not show the new key yet; run this again")


def next_file(config: Config) -> Path:
    """Where the new key is until it takes the old one's place."""
    path = config.resolve(config.identity.node_key_file)
    return path.with_name(f"{path.name}.next")


def next_key(config: Config) -> SigningKey:
    """The new key, drawn if there is none yet. Raises `KeyFileError`."""
    path = next_file(config)
    return load_key(path) if path.exists() else create_key(path)


def exchange(config: Config, old: SigningKey, new: SigningKey) -> Path:
    """Put the new key, with a journal of its own, in the place of the old one; where the old key is kept.

    Raises:
        AgentRunsError: the agent runs.
        JournalError, KeyFileError: a file cannot be moved; run it again once that is mended.
    """
    journal, key_file = config.journal_file, config.resolve(config.identity.node_key_file)
    kept = key_file.with_name(f"{key_file.name}{_suffix(old)}")
    lock = _lock(journal)
    try:
        _link(key_file, kept)
        for ending in (".signed", ".backup"):
            _move(key_file.with_name(key_file.name + ending), kept.with_name(kept.name + ending))
        if not _is_journal_of(config, new):
            for file in (journal, ledger_file(config)):
                for ending in _SQLITE_FILES:
                    _move(file.with_name(file.name + ending), file.with_name(f"{file.name}{_suffix(old)}{ending}"))
            new_journal(config, new.public, is_key_new=True)
        _carry_history(config, old, new)
        next_file(config).replace(key_file)
        sync_folder(key_file.parent)
    except OSError as error:
        raise KeyFileError(f"{error.filename}: cannot be moved: {error.strerror}; run this again") from error
    finally:
        if lock is not None:
            os.close(lock)
    return kept


def _carry_history(config: Config, old: SigningKey, new: SigningKey) -> None:
    """Begin the new key's ledger with the epochs and payments of the old one (rule 6); done again, it changes nothing.

    Which records an epoch counted is left out: their numbers are of the old key's log.
    """
    path, pool = ledger_file(config), PoolId(config.pool.global_id, config.pool.contract.account)
    before = path.with_name(f"{path.name}{_suffix(old)}")
    if not before.exists():
        return
    try:
        with read_ledger(before, pool) as reader:
            epochs, payments = reader.epochs(), reader.paid()
    except OperationError as error:
        note(f"the history of earnings begins anew: {error}")  # a notebook must not keep a key from being replaced
        return
    with closing(open_ledger(path, node_key=new.public, pool=pool)) as ledger:
        for row in epochs:
            ledger.keep_epoch(replace(row, head_seq=0, evidence=()))
        for payment in payments:
            ledger.keep_paid(payment)
    if path.exists():
        give_to_folders_owner(path)


def _suffix(old: SigningKey) -> str:
    return f".old-{old.public.hex()[:8]}"


def _lock(journal: Path) -> int | None:
    """Keep agents out; without a journal none can run."""
    if not journal.exists():
        return None
    try:
        return journal_file.lock(journal)
    except JournalError as error:
        raise AgentRunsError(
            f"the registry names the new key, and the agent still runs with the old one: stop it, run this again, "
            f"start it ({error})"
        ) from error


def _is_journal_of(config: Config, key: SigningKey) -> bool:
    """Whether a journal of this very key stands there: from a rotation that was cut short."""
    path = config.journal_file
    if not path.exists():
        return False
    pool = PoolId(config.pool.global_id, config.pool.contract.account)
    with journal_file.explaining(path, "read"), closing(journal_file.connect_reading(path)) as database:
        try:
            journal_file.require_owner(path, database, key.public, pool)
        except ForeignJournalError:
            return False
    return True


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; one that has it already keeps it."""
    if not (target.exists() and target.samefile(source)):
        target.hardlink_to(source)


def _move(source: Path, target: Path) -> None:
    """Give a file another name, which nothing else has."""
    if not source.exists():
        return
    if target.exists():
        raise KeyFileError(f"{target}: exists already; nothing is overwritten: move it away, then run this again")
    source.rename(target)


_OPERATOR = (
    "this node key is an operator's in set {set_id}: without it the vote is lost until the set is changed, so that "
    "comes first. Propose a set (`gpupool pool set show`, `set propose`) with {new} in the place of {old}; the new key "
    "signs its acceptance (`gpupool pool certificate sign FILE --yes --node-key node.key.next`, with --pool, --network "
    "and --liteserver). Once that set is in force, run this again with --at-epoch-end: the set before settles the "
    "epoch that runs then"
)
