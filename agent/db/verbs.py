"""What each verb of `gpupool db` does: which journal, whose, and how the outcome is said."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import closing

from agent import journal_file
from agent.config import Config, load_config
from agent.db.archive import export_journal, import_journal
from agent.db.examining import Examination, examine
from agent.errors import KeyDeniedError
from agent.identity import load_key
from agent.output import EXIT_FAILED, answer, note
from agent.progress import progress
from agent.texts import legible
from gossip.records import PoolId


def check(options: argparse.Namespace) -> int:
    """Examine the journal; 1 if anything is damaged."""
    config = load_config(options.config)
    node_key, pool = _owner_to_read(config)
    path = config.journal_file
    with journal_file.explaining(path, "read"), closing(journal_file.connect_reading(path)) as database:
        journal_file.require_identity(path, database, node_key, pool)
        with progress(options) as tell:
            found = examine(database, node_key, pool, tell)
    value = {
        "file": str(path),
        "sound": found.damaged == 0,
        "damaged": found.damaged,
        "findings": found.findings,
        "good": dict(found.good),
        "own_log": {"head_seq": found.own_head.seq, "head_hash": found.own_head.hash.hex()},
        "settled_epoch": found.settled_epoch,
    }
    answer(options, value, _examination_text(str(path), found))
    return EXIT_FAILED if found.damaged else 0


def export(options: argparse.Namespace) -> int:
    """Write the journal into a file."""
    config = load_config(options.config)
    node_key, pool = _owner_to_read(config)
    with progress(options) as tell:
        target = options.file.absolute()
        counts = export_journal(config.journal_file, target, node_key=node_key, pool=pool, tell=tell)
    value = {"file": str(options.file), "rows": dict(counts)}
    return answer(options, value, f"wrote {options.file}: {_rows_text(counts)}")


def import_file(options: argparse.Namespace) -> int:
    """Make the journal anew from a file."""
    config = load_config(options.config)
    node_key, pool = _owner(config)
    path = config.journal_file
    with progress(options) as tell:
        counts = import_journal(options.file.absolute(), path, node_key=node_key, pool=pool, tell=tell)
    answer(options, {"file": str(path), "rows": dict(counts)}, f"made {path}: {_rows_text(counts)}")
    note("next: start the agent; it writes records once more than two thirds of the other operators have answered")
    return 0


def _owner(config: Config) -> tuple[bytes, PoolId]:
    """Node key and pool of the config's agent."""
    node = load_key(config.resolve(config.identity.node_key_file))
    return node.public, _pool(config)


def _owner_to_read(config: Config) -> tuple[bytes, PoolId]:
    """The same; of whom the journal says it is, where the key is root's alone: a backup job need not be root."""
    path = config.journal_file
    journal_file.require_present(path)
    try:
        return _owner(config)
    except KeyDeniedError:
        with journal_file.explaining(path, "read"), closing(journal_file.connect_reading(path)) as database:
            return journal_file.read_node_key(path, database), _pool(config)


def _pool(config: Config) -> PoolId:
    return PoolId(config.pool.global_id, config.pool.contract.account)


def _examination_text(path: str, found: Examination) -> str:
    lines = [
        f"{path}: {f'damaged in {found.damaged} places' if found.damaged else 'sound'}",
        *(f"  {legible(finding)}" for finding in found.findings),
        *([f"  and {found.damaged - len(found.findings)} more"] if found.damaged > len(found.findings) else []),
        f"good: {_rows_text(found.good)}",
        f"own log: up to record {found.own_head.seq}; settled: up to epoch {found.settled_epoch}",
    ]
    if found.damaged:
        lines.append(_WAY_OUT)
    return "\n".join(lines)


def _rows_text(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {_WORDS.get(kind, kind)}" for kind, count in rows.items()) or "nothing"


_WORDS = {
    "record": "records",
    "message": "messages",
    "outcome": "outcomes that may land",
    "landed": "settlements",
    "attachment": "attachments",
    "named": "names of attachments",
    "witness": "witnessed participants",
    "meter": "meters",
    "window": "windows that wait",
    "run": "runs of the agent",
}
_WAY_OUT = (
    "next: stop the agent, move the file away (with what is beside it), then `gpupool db import` the newest export; "
    "without one, `gpupool run --fresh`: the operators hold what was sent, windows that wait and meters are lost"
)
