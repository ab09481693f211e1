"""The doctor at what others left: notes beside keys and in the journal, another pool's journal, who holds its lock."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import closing
from pathlib import Path

import pytest
import trio
from agent_on_disk import agent_on_disk, answering
from doctor_facts import status_tree

from agent.config import Config
from agent.doctor import probing_journal
from agent.doctor.collecting import collect
from agent.doctor.facts import DaemonFacts, Holder
from agent.doctor.probing_files import open_settings
from agent.doctor.probing_journal import find_holder, look_at_journal
from agent.identity import load_key
from agent.journal import open_journal
from agent.journal_file import KEY_IN_USE
from agent.keys.marker import note_backup
from gossip.records import PoolId

POOL = PoolId(-217, b"\xab" * 32)


def node_key(config: Config) -> bytes:
    return load_key(config.resolve(config.identity.node_key_file)).public


def test_keys_without_a_backup_are_told_until_one_is_noted(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    files = [config.resolve(config.identity.node_key_file), config.resolve(config.wallet.key_file)]
    assert open_settings(config.path)[0].not_backed_up == tuple(map(str, files))
    for file in files:
        note_backup(file, public_key=load_key(file).public, backup=tmp_path / "keys.age", made_s=1)
    assert open_settings(config.path)[0].not_backed_up == ()
    files[0].with_name(files[0].name + ".backup").write_text("garbage")
    assert open_settings(config.path)[0].not_backed_up == (str(files[0]),)


def test_why_the_last_run_gave_way_is_read_from_the_journal(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    assert look_at_journal(config.journal_file, node_key(config), POOL).key_in_use is None
    with closing(open_journal(config.journal_file, node_key=node_key(config), pool=POOL)) as journal:
        journal.note(KEY_IN_USE, b"heard from 10.0.0.7")
    assert look_at_journal(config.journal_file, node_key(config), POOL).key_in_use == "heard from 10.0.0.7"


def test_a_journal_of_another_pool_is_foreign_and_not_examined(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    facts = look_at_journal(config.journal_file, node_key(config), PoolId(-217, b"\xcd" * 32))
    assert "belongs to another pool" in str(facts.foreign)
    assert not facts.is_open


@pytest.mark.parametrize("locks", ["", "1: FLOCK\n", "1: FLOCK  ADVISORY  WRITE x 00:2a:{} 0 EOF\n", None])
def test_a_holder_that_is_not_shown_may_be_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: str | None
) -> None:
    lock = tmp_path / "journal.sqlite.lock"
    lock.touch()
    shown = tmp_path / "locks"
    if locks is not None:
        shown.write_text(locks.format(lock.stat().st_ino))
    monkeypatch.setattr(probing_journal, "LOCKS", shown)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert find_holder(tmp_path / "journal.sqlite") == Holder(pid=None, command="", is_agent=True)


def test_a_holder_that_is_shown_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "journal.sqlite.lock"
    lock.touch()
    shown = tmp_path / "locks"
    shown.write_text(f"7: FLOCK  ADVISORY  WRITE {os.getpid()} 00:2a:{lock.stat().st_ino} 0 EOF\n")
    monkeypatch.setattr(probing_journal, "LOCKS", shown)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder = find_holder(tmp_path / "journal.sqlite")
    assert isinstance(holder, Holder)
    assert str(holder).startswith(f"process {os.getpid()} (")


def test_sources_of_settings_that_are_newer_than_the_agent_are_tried(tmp_path: Path) -> None:
    """The agent that runs reads its engine; that of the new settings does not answer."""
    config_of = agent_on_disk(tmp_path)
    tree = status_tree(node_key=node_key(config_of).hex(), uptime_s=3600)
    pages = {"/-/status": (200, json.dumps(tree).encode()), "/-/healthy": (200, b"ok\n"), "/-/ready": (200, b"ok\n")}
    with answering(pages) as port:
        text = config_of.path.read_text().replace(f"port = {config_of.web.port}", f"port = {port}")
        config_of.path.write_text(text)
        os.utime(config_of.path, (time.time(), time.time()))
        facts = trio.run(collect, config_of.path)
    assert isinstance(facts.daemon, DaemonFacts)
    assert len(facts.untried) == 1
    assert facts.untried[0].startswith("engine 0: ")
