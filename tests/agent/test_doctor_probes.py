"""The doctor's probes on a real file system and loopback: whatever is broken, there are facts, and nothing changes."""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from agent_on_disk import agent_on_disk
from pool_fixture import POLICY_TEXT, policy
from trio.testing import MockClock

from agent.config import Config
from agent.doctor import collecting, probing_files, probing_journal
from agent.doctor.collecting import collect
from agent.doctor.diagnosis import CHECKS, diagnose, first_problem
from agent.doctor.facts import (
    DaemonFacts,
    DaemonState,
    Holder,
    HostFacts,
    JournalFacts,
    Nothing,
    SettingsFacts,
    Unknown,
    WorkerFacts,
)
from agent.doctor.findings import Severity
from agent.doctor.probing_files import look_at_host, open_settings, try_kernel
from agent.doctor.probing_journal import find_holder, look_at_journal
from agent.errors import DENIED, KeyDeniedError
from agent.identity import create_key, load_key
from agent.journal import open_journal
from agent.tables import ReceiptsTable
from contracts.signing import SigningKey
from gossip.records import PoolId

NO_PORT = "web.port is 0: the agent's port is not known"
POOL = PoolId(-217, b"\xab" * 32)


def snapshot(folder: Path) -> dict[str, bytes]:
    """What stands in a folder, but for what SQLite leaves beside a file that is read."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal")))
    return {str(path): path.read_bytes() for path in files}


# Settings.


def test_settings_that_are_whole(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    facts, opened = open_settings(config.path)
    assert (facts.config, facts.node_key, facts.wallet_key, facts.policy, facts.servers, facts.proof) == (None,) * 6
    assert opened is not None
    assert opened.policies == {policy().hash: policy()}
    assert len(opened.servers) == 1


def test_where_the_policy_documents_stand(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    text = config.path.read_text()
    config.path.write_text(text.replace("[pool]", '[pool]\nnext_policy_file = "next.toml"'))
    (tmp_path / "next.toml").write_text((tmp_path / "policy.toml").read_text())
    same, _ = open_settings(config.path)
    assert same.policy_files == (str(tmp_path / "policy.toml"),), "one document, named twice"
    (tmp_path / "next.toml").write_text(POLICY_TEXT.replace("machine_nodes_max = 1", "machine_nodes_max = 2"))
    two, opened = open_settings(config.path)
    assert opened is not None
    assert two.policy_files == (str(tmp_path / "policy.toml"), str(tmp_path / "next.toml"))
    assert len(opened.policies or ()) == 2


@pytest.mark.parametrize(
    ("mode", "is_closed"), [(0o600, False), (0o400, False), (0o644, True), (0o640, True), (0o000, True)]
)
def test_a_key_that_its_mode_keeps_from_being_used(tmp_path: Path, mode: int, is_closed: bool) -> None:
    config = agent_on_disk(tmp_path)
    (tmp_path / "wallet.key").chmod(mode)
    facts, _ = open_settings(config.path)
    assert facts.closed_keys == ({"wallet_key": str(tmp_path / "wallet.key")} if is_closed else {})


def test_a_key_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = agent_on_disk(tmp_path)

    def load(path: Path) -> SigningKey:
        if path.name == "node.key":
            raise KeyDeniedError(f"{path}: {DENIED}")
        return load_key(path)

    monkeypatch.setattr(probing_files, "load_key", load)
    facts, opened = open_settings(config.path)
    assert facts.denied_keys == {"node_key"}
    assert isinstance(facts.not_backed_up, Unknown), "nobody is told that all is backed up"
    assert opened is not None
    assert (opened.node_key, opened.next_node_key) == (None, None)


def test_the_key_of_a_rotation_that_is_not_finished(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    key = create_key(tmp_path / "node.key.next")
    _, opened = open_settings(config.path)
    assert opened is not None
    assert opened.next_node_key is not None
    assert opened.next_node_key.public == key.public


def _open_to_all(folder: Path) -> None:
    (folder / "node.key").chmod(0o644)


def _no_toml(folder: Path) -> None:
    (folder / "policy.toml").write_text("[timing")


def _global_config(folder: Path) -> None:
    text = (folder / "agent.toml").read_text()
    (folder / "agent.toml").write_text(text.replace("[chain]", '[chain]\nglobal_config = "none.json"'))


@pytest.mark.parametrize(
    ("breaking", "fact", "said"),
    [
        (_open_to_all, "node_key", "readable by others (mode 0644); run: chmod 600"),
        (lambda folder: (folder / "wallet.key").unlink(), "wallet_key", "wallet.key: missing; a lost key"),
        (lambda folder: (folder / "wallet.key").write_text("key"), "wallet_key", "not an unencrypted PKCS#8"),
        (_no_toml, "policy", "policy.toml: pool.policy_file: policy: "),
        (lambda folder: (folder / "policy.toml").unlink(), "policy", "pool.policy_file: cannot be read"),
        (_global_config, "servers", "none.json: cannot be read"),
        (lambda folder: (folder / "root" / "root.der").write_bytes(b"?"), "proof", "root.der: not a certificate"),
    ],
)
def test_one_broken_file_hides_no_other(
    tmp_path: Path, breaking: Callable[[Path], object], fact: str, said: str
) -> None:
    config = agent_on_disk(tmp_path)
    breaking(tmp_path)
    facts, opened = open_settings(config.path)
    found = {name: getattr(facts, name) for name in ("node_key", "wallet_key", "policy", "servers", "proof")}
    assert said in found.pop(fact)
    assert set(found.values()) == {None}
    assert opened is not None


@pytest.mark.parametrize("content", [b"surprise = 1", b"\xff\xfe", b"[" * 10_000, b""])
def test_settings_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(content)
    facts, opened = open_settings(path)
    assert isinstance(facts, SettingsFacts)
    assert str(path) in str(facts.config)
    assert opened is None


# The host.


def test_ports_that_are_taken(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    free = look_at_host(config, None, is_agent_down=True)
    assert (free.web_port, free.p2p_ports, free.data_dir) == (None, None, None)
    assert isinstance(free.free_bytes, int)
    with socket.socket() as web, socket.socket() as p2p:
        web.bind(("127.0.0.1", config.web.port))
        web.listen()
        p2p.bind(("127.0.0.1", int(config.p2p.listen[0].rpartition("/")[2])))
        p2p.listen()
        taken = look_at_host(config, None, is_agent_down=True)
        assert "address already in use" in str(taken.web_port)
        assert str(taken.p2p_ports).startswith("p2p.listen[0]: 127.0.0.1 port")
        assert isinstance(look_at_host(config, None, is_agent_down=False).web_port, Unknown), "a running agent's own"


def test_the_port_for_receipts(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    assert isinstance(look_at_host(config, None, is_agent_down=True).receipts_port, Nothing), "none is named"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        taking = msgspec.structs.replace(config, receipts=ReceiptsTable(port=port))
        found = look_at_host(taking, None, is_agent_down=True).receipts_port
        assert found == f"receipts.port: 127.0.0.1 port {port}: address already in use"
        assert isinstance(look_at_host(taking, None, is_agent_down=False).receipts_port, Unknown), "the agent's own"
    assert look_at_host(taking, None, is_agent_down=True).receipts_port is None


def test_an_address_that_is_not_this_hosts(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    elsewhere = msgspec.structs.replace(
        config, p2p=msgspec.structs.replace(config.p2p, listen=("/ip4/203.0.113.7/tcp/4001",))
    )
    assert "cannot assign requested address" in str(look_at_host(elsewhere, None, is_agent_down=True).p2p_ports)


def test_a_data_folder_that_is_missing(tmp_path: Path) -> None:
    config = msgspec.structs.replace(agent_on_disk(tmp_path), data_dir=tmp_path / "gone")
    facts = look_at_host(config, None, is_agent_down=True)
    assert isinstance(facts, HostFacts)
    assert "gone: the data folder cannot be used: no such file or directory" in str(facts.data_dir)
    assert isinstance(facts.free_bytes, Unknown)


def test_the_kernels_report_folder(tmp_path: Path) -> None:
    assert try_kernel(tmp_path) is None
    assert "this host is no TDX guest" in str(try_kernel(tmp_path / "report"))


# The journal.


def journal_of(config: Config) -> JournalFacts:
    return look_at_journal(config.journal_file, load_key(tmp_key(config)).public, POOL)


def tmp_key(config: Config) -> Path:
    return config.resolve(config.identity.node_key_file)


def test_a_journal_that_is_sound(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    before = snapshot(tmp_path)
    facts = journal_of(config)
    assert facts == JournalFacts(missing=None, unusable=None, damage=None, windows_waiting=0, settled=None)
    assert snapshot(tmp_path) == before, "the doctor only looks"


def test_a_journal_beside_its_agent(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    with closing(open_journal(config.journal_file, node_key=load_key(tmp_key(config)).public, pool=POOL)):
        assert isinstance(find_holder(config.journal_file), Holder)
        assert journal_of(config).damage is None
    assert find_holder(config.journal_file) is None


def test_a_look_at_the_lock_leaves_it_free(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    lock = config.journal_file.with_name(config.journal_file.name + ".lock")
    lock.touch()
    assert find_holder(config.journal_file) is None
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder = find_holder(config.journal_file)
    assert isinstance(holder, Holder)
    assert (holder.pid, holder.is_agent) in ((os.getpid(), False), (None, True)), "a sandbox may hide who it is"


def test_a_journal_that_is_missing(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    config.journal_file.unlink()
    facts = journal_of(config)
    assert "there is no journal" in str(facts.missing)
    assert isinstance(facts.settled, Unknown)


def test_a_journal_of_another_key(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    facts = look_at_journal(config.journal_file, bytes(32), POOL)
    assert "belongs to another node key" in str(facts.foreign)
    assert look_at_journal(config.journal_file, None, POOL).missing is None, "without a key it is not opened"


@pytest.mark.parametrize("offset", [0, 100, 4096, 8192])
def test_a_journal_that_is_damaged(tmp_path: Path, offset: int) -> None:
    config = agent_on_disk(tmp_path)
    with config.journal_file.open("r+b") as file:
        file.seek(offset)
        file.write(os.urandom(2000))
    facts = journal_of(config)
    said = facts.unusable or facts.damage
    assert isinstance(said, str)
    assert "damaged" in said


def test_a_row_that_is_damaged(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    with closing(sqlite3.connect(config.journal_file)) as database, database:
        database.execute("INSERT INTO window (body, crc) VALUES (x'00', 0)")
    facts = journal_of(config)
    assert facts.windows_waiting == 1
    assert str(facts.damage).startswith("the journal is damaged: window: 1:")


def test_an_examination_that_takes_too_long_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing_journal, "EXAMINE_S", -1.0)
    facts = journal_of(agent_on_disk(tmp_path))
    assert isinstance(facts.damage, Unknown)
    assert "gpupool db check" in facts.damage.reason


# All of it.


async def test_an_agent_that_was_never_started(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    before = snapshot(tmp_path)
    facts = await collect(config.path)
    findings = diagnose(facts)
    problems = [each.code for each in findings if each.severity is Severity.PROBLEM]
    assert problems == ["agent-down", "chain-unreachable", "source-failing"]
    assert snapshot(tmp_path) == before, "the doctor only looks"


async def test_sources_are_read_while_no_agent_runs(tmp_path: Path) -> None:
    facts = await collect(agent_on_disk(tmp_path).path)
    assert isinstance(facts.sources, list)
    assert [(each.source, each.instance) for each in facts.sources] == [("engine", 0)]
    assert "/metrics" in str(facts.sources[0].error)
    assert facts.workers == ()


async def test_what_takes_long_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = agent_on_disk(tmp_path)
    first = await collect(config.path)

    def examine(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(probing_journal, "examine", examine)
    exposed = ("its control port answers on 203.0.113.7",)
    worker = WorkerFacts(name="worker 0", is_image_listed=None, is_model_listed=None, exposed=exposed, guest=None)
    told: list[object] = []

    async def read_sources(*_: object, **options: object) -> tuple[list[Any], tuple[Any, ...]]:
        told.append(options["exposed"])
        return [], ()

    monkeypatch.setattr(collecting, "read_sources", read_sources)
    again = await collect(config.path, before=replace(first, workers=(worker,)))
    assert isinstance(first.journal, JournalFacts)
    assert again.journal == first.journal
    assert told == [{"worker 0": exposed}]


async def test_broken_settings_leave_nothing_else_to_know(tmp_path: Path) -> None:
    facts = await collect(tmp_path / "agent.toml")
    findings = diagnose(facts)
    assert len(findings) == len(CHECKS)
    problem = first_problem(findings)
    assert problem is not None
    assert problem.code == "config-unusable"
    assert isinstance(facts.daemon, Unknown)


async def test_it_ends_in_time_whatever_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    config = agent_on_disk(tmp_path)

    async def hang(*_: object, **__: object) -> Any:
        await trio.sleep_forever()

    async def at_once(function: Callable[[], Any]) -> Any:
        return function()

    monkeypatch.setattr(collecting, "_in_thread", at_once)
    for probe in ("ask_running", "look_at_chain", "read_sources"):
        monkeypatch.setattr(collecting, probe, hang)
    facts = await collect(config.path)
    assert trio.current_time() <= collecting.WHOLE_S
    assert facts.daemon == Unknown("asking the agent took more than 5 s")
    assert [each.code for each in diagnose(facts) if each.severity is Severity.PROBLEM] == ["chain-unreachable"]


async def test_a_port_that_nobody_knows(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path, web_port=0)
    facts = await collect(config.path)
    assert isinstance(facts.daemon, DaemonFacts)
    assert (facts.daemon.state, facts.daemon.detail) == (DaemonState.DOWN, NO_PORT)
    with closing(open_journal(config.journal_file, node_key=load_key(tmp_key(config)).public, pool=POOL)):
        assert (await collect(config.path)).daemon == Unknown(NO_PORT), "some process holds the journal"


async def test_a_guest_that_does_not_answer(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    text = config.path.read_text().replace('provider = "software"', 'provider = "cocoon"')
    port = config.web.port
    text = text.replace('software_dir = "platform"', f'guest_address = "127.0.0.1:{port}"')
    config.path.write_text(text.replace('software_root_file = "root/root.der"\n', ""))
    facts = await collect(config.path)
    assert isinstance(facts.host, HostFacts)
    assert f"the Cocoon guest does not answer at 127.0.0.1:{port}" in str(facts.host.prover)
