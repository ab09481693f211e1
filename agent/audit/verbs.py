"""What each verb of `gpupool audit` does: which files, which chain, and how the outcome is said."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import trio

from agent import journal_file
from agent.arguments import parse_hash
from agent.audit.bundle import read_bundle_digest, require_vacant, write_bundle
from agent.audit.exporting import Exported, Exporter
from agent.audit.telling import verification_text, verification_value
from agent.audit.verifying import verify
from agent.config import Config, load_config
from agent.errors import ConfigError
from agent.identity import load_key
from agent.journal import Journal
from agent.output import EXIT_FAILED, answer, note
from agent.policies import load_policies
from agent.progress import progress
from agent.providers import pool_root
from agent.servers import config_servers
from contracts.chain import open_chain
from gossip.records import PoolId


def export(options: argparse.Namespace) -> int:
    """Write an epoch's bundle."""
    config = load_config(options.config)
    target = options.out or Path(f"epoch-{options.epoch}.audit")
    require_vacant(target)
    node_key = load_key(config.resolve(config.identity.node_key_file)).public
    pool = PoolId(config.pool.global_id, config.pool.contract.account)
    path = config.journal_file
    journal_file.require_present(path)
    with journal_file.explaining(path, "read"), closing(journal_file.connect_reading(path)) as database:
        journal_file.require_identity(path, database, node_key, pool)
        journal = Journal(path, database, node_key, pool)
        with progress(options) as tell:
            tell(f"asking the chain for epoch {options.epoch}, with proofs")
            exported = trio.run(_export, config, journal, pool, options.epoch)
    length = write_bundle(target, exported.bundle)
    for each in exported.notes:
        note(each)
    if not exported.is_same:
        note(f"what follows from it is not what landed; see `gpupool audit verify {target}`")
    bundle = exported.bundle
    value = {
        "file": str(target),
        "bytes": length,
        "epoch": bundle.epoch,
        "is_same": exported.is_same,
        "records": len(bundle.records),
        "observations": len(bundle.observations),
        "signatures": len(bundle.signatures),
        "attachments": len(bundle.attachments),
        "blocks": len(bundle.chain.headers),
    }
    counts = ", ".join(f"{value[kind]} {kind}" for kind in ("records", "observations", "attachments", "blocks"))
    return answer(options, value, f"wrote {target}: {length:,} bytes, {counts}")


async def _export(config: Config, journal: Journal, pool: PoolId, epoch: int) -> Exported:
    servers, table = config_servers(config), config.chain
    async with open_chain(servers, trust_level=table.trust_level, timeout_s=table.timeout_s) as chain:
        exporter = Exporter(chain, journal, pool, _policy_texts(config), pool_root(config))
        return await exporter.export(epoch)


def _policy_texts(config: Config) -> list[str]:
    """The policy documents that the config names, as they are.

    Raises:
        ConfigError: one cannot be read, or is no policy.
    """
    load_policies(config)
    named = (config.pool.policy_file, config.pool.next_policy_file)
    return [config.resolve(name).read_text(encoding="utf-8") for name in named if name is not None]


def verify_file(options: argparse.Namespace) -> int:
    """Verify a bundle; 1 unless the very same settlement follows from it."""
    confirmed = _blocks(options.block)
    bundle, digest = read_bundle_digest(options.file)
    with progress(options) as tell:
        found = verify(bundle, confirmed, tell=tell)
    value: dict[str, Any] = {"file": str(options.file), "sha256": digest.hex()}
    value |= verification_value(bundle, found)
    answer(options, value, verification_text(value))
    return 0 if found.is_same else EXIT_FAILED


def _blocks(typed: Sequence[str]) -> list[tuple[int, bytes]]:
    """SEQNO:ROOTHASH as number and hash.

    Raises:
        ConfigError: one has another form.
    """
    blocks = []
    for text in typed:
        seqno, _, root_hash = text.partition(":")
        if re.fullmatch("[0-9]{1,10}", seqno) is None:
            raise ConfigError(f"--block {text}: expected SEQNO:ROOTHASH, a number and 64 hex digits")
        blocks.append((int(seqno), parse_hash(f"--block {seqno}:", root_hash)))
    return blocks
