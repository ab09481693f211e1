"""`gpupool keys rotate`: what is asked, in which order it is done, how the outcome is said (`agent.keys.rotating`)."""

from __future__ import annotations

import argparse
import secrets

from agent.config import Config, load_config
from agent.errors import OperationError
from agent.identity import load_key
from agent.keys.asking import ask, is_asking_possible
from agent.keys.rotating import (
    AgentRunsError,
    epoch_settled,
    exchange,
    loss,
    next_file,
    next_key,
    require_time,
    rotation,
    shown,
)
from agent.output import EXIT_USAGE, answer, note
from agent.pool.access import with_session
from agent.pool.participant import own_entry
from agent.pool.sending import carry_out
from agent.pool.session import PoolSession
from contracts.model import Participant
from contracts.signing import SEED_BYTES, SigningKey


def rotate(options: argparse.Namespace) -> int:
    """Replace the node key: in the registry, then in the files; or go on where that was cut short."""
    config = load_config(options.config)
    old = load_key(config.resolve(config.identity.node_key_file))

    async def act(session: PoolSession) -> int:
        entry = await own_entry(session)
        is_to_be_named = entry.node_key == old.public
        if is_to_be_named:
            done = await _replace(session, options, config, entry)
            if done is not None:
                return done
        new = _named(config, (await own_entry(session)).node_key)
        try:
            return _finish(options, config, old, new)
        except AgentRunsError:
            if not is_to_be_named:  # nothing was done by this run
                raise
            return _halfway(options, config, old, new)

    return with_session(options, act)


async def _replace(session: PoolSession, options: argparse.Namespace, config: Config, entry: Participant) -> int | None:
    """Have the registry name the new key; the exit code where that was rehearsed, or not agreed to."""
    if options.dry_run:
        is_there = next_file(config).exists()
        new = load_key(next_file(config)) if is_there else SigningKey(secrets.token_bytes(SEED_BYTES))
        return await carry_out(session, options, await rotation(session, entry, new))
    await require_time(session, entry)
    note(await loss(session, at_epoch_end=options.at_epoch_end))
    if not _is_agreed(options):
        note("nothing was done. Add --yes to do it")
        return EXIT_USAGE
    new = next_key(config)
    operation = await rotation(session, entry, new)
    if options.at_epoch_end:
        note("waiting for the running epoch to settle; interrupt it if that takes too long: nothing was sent")
        await epoch_settled(session)
        operation = await rotation(session, entry, new)
    await carry_out(session, options, operation)
    await shown(session, new)
    return None


def _is_agreed(options: argparse.Namespace) -> bool:
    if options.yes or not is_asking_possible():
        return bool(options.yes)
    return ask("replace the node key? (yes/no) ").lower() in ("y", "yes")


def _named(config: Config, public: bytes) -> SigningKey:
    """The new key, which the registry names."""
    path = next_file(config)
    new = load_key(path) if path.exists() else None
    if new is None or new.public != public:
        raise OperationError(
            f"the registry names the node key {public.hex()} for this wallet: neither the one of the config, nor that "
            f"of {path}; is this the right host?"
        )
    return new


def _halfway(options: argparse.Namespace, config: Config, old: SigningKey, new: SigningKey) -> int:
    """The first of the two steps beside an agent that runs: the registry names the new key."""
    return answer(
        options,
        {"node_key": new.public.hex(), "previous": old.public.hex(), "done": False},
        f"the registry names the new node key, {new.public.hex()}; the agent still runs with the old one, and what it "
        f"does from now on does not count\n"
        f"next: stop the agent, gpupool keys rotate --yes --config {config.path}, start the agent",
    )


def _finish(options: argparse.Namespace, config: Config, old: SigningKey, new: SigningKey) -> int:
    if options.dry_run:
        text = "the registry names the new key; what is left is to put it in its place"
        return answer(options, {"node_key": new.public.hex(), "done": False}, text)
    kept = exchange(config, old, new)
    value = {
        "node_key": new.public.hex(),
        "previous": old.public.hex(),
        "previous_file": str(kept),
        "journal": str(config.journal_file),
        "done": True,
    }
    return answer(
        options,
        value,
        f"node key  {new.public.hex()}\n"
        f"before    {old.public.hex()}, kept as {kept}\n"
        "next: start the agent, and make a backup of the new key (gpupool keys backup). It earns once its first "
        "evidence is made; who names this host under [[p2p.peers]] changes node_key there",
    )
