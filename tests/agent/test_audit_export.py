"""Exporting: from a journal and the chain to a file that verifies; what is said of what is gone; the command line."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from audit_scene import KEY, AuditScene, inflated
from journal_scene import own_config
from pool_fixture import POOL, START_S, key

from agent.audit import verbs
from agent.audit.bundle import Bundle, encode_bundle, read_bundle, write_bundle
from agent.audit.exporting import Exporter
from agent.audit.verifying import Verification, verify
from agent.cli import main
from agent.config import Config
from agent.errors import OperationError
from agent.output import EXIT_JOURNAL
from contracts.errors import ChainUnavailableError
from gossip.log_chain import Head
from gossip.records import WorkBody, make_record


@pytest.fixture
def scene(tmp_path: Path) -> AuditScene:
    (tmp_path / "pool").mkdir()
    made = AuditScene(tmp_path / "pool")
    made.run(2)
    return made


def change(scene: AuditScene, statement: str) -> None:
    with closing(sqlite3.connect(scene.journal_file)) as database, database:
        database.execute(statement)


async def test_the_same_journal_and_chain_give_the_same_bytes_and_the_journal_is_only_read(scene: AuditScene) -> None:
    before = scene.journal_file.read_bytes()
    one, other = await scene.export(2), await scene.export(2)
    assert encode_bundle(one) == encode_bundle(other)
    assert scene.journal_file.read_bytes() == before


async def test_only_what_is_needed_is_in_it(scene: AuditScene) -> None:
    author = scene.authors[1]
    scene.add(author.work(scene.window_s, tokens=7))  # after the second epoch settled
    for epoch, records in ((1, 4 * 4), (2, 4 * 3)):
        bundle = await scene.export(epoch)
        assert len(bundle.records) == records
        assert len(bundle.observations) == len(bundle.signatures) == 4
        assert len(bundle.attachments) == (1 if epoch == 1 else 0)
        assert verify(bundle).is_same


async def test_an_epoch_that_has_not_settled(scene: AuditScene) -> None:
    for epoch in (0, -1, 3):
        with pytest.raises(OperationError, match=f"epoch {epoch} has not settled; the last that did is 2"):
            await scene.export(epoch)


def test_epochs_that_landed_in_one_block_cannot_be_told_apart(scene: AuditScene) -> None:
    at = START_S + 4 * scene.epoch_s
    scene.landed = replace(scene.landed, epoch=4, settled_s=at)
    scene.write_contracts(())
    scene.chain.seal(at)
    with pytest.raises(OperationError, match="epoch 3 and the next one landed in one block"):
        trio.run(scene.export, 3)
    assert verify(trio.run(scene.export, 2)).is_same


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM message WHERE kind = 'proposal'", "the proposal behind the settlement of epoch 2"),
        ("DELETE FROM message WHERE kind = 'observation'", "the proposal behind the settlement of epoch 2"),
        ("DELETE FROM landed WHERE epoch = 2", "the settlement of epoch 2 is not in the journal"),
        ("DELETE FROM landed WHERE epoch = 1", "the settlement of epoch 1 is not in the journal"),
        (
            f"DELETE FROM record WHERE seq = 6 AND hex(node_key) != '{KEY.public.hex().upper()}'",
            "records 5 to 7 of node [0-9a-f]{64} are not all here",
        ),
    ],
)
async def test_what_the_journal_holds_no_more(scene: AuditScene, statement: str, message: str) -> None:
    change(scene, statement)
    with pytest.raises(OperationError, match=f"{message}.*a journal keeps 16 settled epochs.*ask another operator"):
        await scene.export(2)


async def test_an_attachment_that_is_gone(scene: AuditScene) -> None:
    change(scene, "DELETE FROM attachments")
    with pytest.raises(OperationError, match=r"what evidence names is not here: attachment [0-9a-f]{64}"):
        await scene.export(1)


async def test_states_that_liteservers_forgot(scene: AuditScene) -> None:
    scene.chain.forgotten = (await scene.chain.head()).seqno - 1
    with pytest.raises(ChainUnavailableError, match="name an archive liteserver"):
        await scene.export(1)


async def test_a_policy_that_is_not_held(scene: AuditScene) -> None:
    other = scene.text.replace("picks = 1", "picks = 2")
    with closing(scene.journal()) as journal:
        exporter = Exporter(scene.chain, journal, POOL, [other], scene.root)
        with pytest.raises(OperationError, match=rf"policy {scene.policy.hash.hex()}, whose document is not here"):
            await exporter.export(2)


@pytest.mark.parametrize("is_forgotten", [True, False])
async def test_signatures_that_cannot_be_had_any_more(scene: AuditScene, is_forgotten: bool) -> None:
    scene.chain.sent = []
    scene.chain.has_history = not is_forgotten
    with closing(scene.journal()) as journal:
        exported = await Exporter(scene.chain, journal, POOL, [scene.text], scene.root).export(2)
    assert exported.bundle.signatures == ()
    assert "signatures" in exported.notes[0]
    assert verify(exported.bundle).is_same


async def test_a_liteserver_that_links_no_blocks_leaves_more_to_be_believed(scene: AuditScene) -> None:
    scene.chain.links = False
    bundle = await scene.export(1)
    assert bundle.chain.links == ()
    found = verify(bundle)
    assert found.is_same
    assert sum(text.startswith("block ") for text in found.believed) == 3


# Logs and evidence out of the ordinary.


def test_a_fork_is_in_the_bundle_as_far_as_it_is_needed(tmp_path: Path) -> None:
    scene = AuditScene(tmp_path)
    honest = scene.authors[2].records[0]
    body = WorkBody(start_s=START_S, end_s=START_S + 5, readings=(), evidence=honest.hash)
    scene.add(make_record(key(2), POOL, 2, honest.hash, body))
    scene.run(1)
    reading = scene.base.readings[key(2).public]
    assert reading.dead
    assert reading.head == Head(1, honest.hash)
    found = verify(trio.run(scene.export, 1))
    assert found.is_same, found


def test_evidence_over_a_block_that_never_was(tmp_path: Path) -> None:
    scene = AuditScene(tmp_path)
    never = replace(scene.anchor, root_hash=b"n" * 32)
    scene.add(scene.authors[3].append(trio.run(scene.evidence, 3, scene.machines[3], never)))
    scene.run(1)
    bundle = trio.run(scene.export, 1)
    assert [(anchor.seqno, anchor.root_hash) for anchor in bundle.denied] == [(never.seqno, never.root_hash)]
    found = verify(bundle)
    assert found.is_same, found
    assert any(f"{never.seqno}:{never.root_hash.hex()}" in text for text in found.believed)
    assert ["refused" in note for note in found.notes] == [True]


# The command line.


def install(scene: AuditScene, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A config of the agent whose journal the scene is; the command line finds the scene's chain."""

    @asynccontextmanager
    async def open_scene(*_: object, **__: object) -> AsyncIterator[object]:
        yield scene.chain

    monkeypatch.setattr(verbs, "open_chain", open_scene)
    config = own_config(folder)
    shutil.copy(scene.journal_file, config.journal_file)
    (folder / "policy.toml").write_text(scene.text)
    (folder / "root.der").write_bytes(scene.root)
    return config


@pytest.fixture
def config(scene: AuditScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    return install(scene, tmp_path / "agent", monkeypatch)


def test_export_and_verify_on_the_command_line(
    scene: AuditScene, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "epoch-2.audit"
    export = ["audit", "export", "--epoch", "2", "--config", str(config.path), "--out", str(path)]
    assert main([*export, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["is_same"] is True
    assert said["bytes"] == path.stat().st_size
    assert (said["records"], said["observations"], said["signatures"]) == (12, 4, 4)
    assert main(export) == 1
    assert "exists already; name another --out" in capsys.readouterr().err
    assert main(["audit", "verify", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["is_same"] is True
    assert found["landed"] == found["recomputed"] == scene.base.payload_hash.hex()
    assert all(check["holds"] for check in found["checks"])
    (block,) = [text.split()[1].rstrip(",") for text in found["believed"] if text.startswith("block ")]
    assert main(["audit", "verify", str(path), "--block", block]) == 0
    text = capsys.readouterr().out
    assert "same, as far as what is believed is true" in text.splitlines()[-1]
    assert f"block {block}" not in text


def test_the_digest_is_of_the_bytes_that_were_verified(
    scene: AuditScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "epoch.audit"
    write_bundle(path, trio.run(scene.export, 2))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def slow(bundle: Bundle, confirmed: Sequence[tuple[int, bytes]], **_: object) -> Verification:
        path.write_bytes(b"another")
        return verify(bundle, confirmed)

    monkeypatch.setattr(verbs, "verify", slow)
    assert main(["audit", "verify", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == digest


def test_what_differs_or_is_damaged_is_exit_code_one(
    scene: AuditScene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle: Bundle = trio.run(scene.export, 2)
    path = tmp_path / "changed.audit"
    write_bundle(path, replace(bundle, records=bundle.records[1:]))
    assert main(["audit", "verify", str(path)]) == 1
    text = capsys.readouterr().out
    assert "records     FAILS" in text
    assert "totals      -      not looked at" in text
    assert "NOT SHOWN" in text.splitlines()[-1]
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["audit", "verify", str(path)]) == 1
    assert "changed.audit: cut short, or changed on its way" in capsys.readouterr().err
    assert main(["audit", "verify", str(path), "--block", "12"]) == 2
    assert main(["audit", "verify", str(path), "--block", "12:zz"]) == 2
    assert "expected 64 hex digits" in capsys.readouterr().err


def test_an_export_needs_a_journal(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = ["audit", "export", "--epoch", "2", "--config", str(config.path), "--out", str(tmp_path / "out")]
    config.journal_file.unlink()
    assert main(export) == EXIT_JOURNAL
    assert "missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_does_not_follow_is_written_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what an auditor wants to see most."""
    (tmp_path / "pool").mkdir()
    scene = AuditScene(tmp_path / "pool", landing=inflated)
    scene.run(1)
    made = install(scene, tmp_path / "agent", monkeypatch)
    path = tmp_path / "lie.audit"
    assert main(["audit", "export", "--epoch", "1", "--config", str(made.path), "--out", str(path)]) == 0
    assert "what follows from it is not what landed" in capsys.readouterr().err
    assert read_bundle(path).epoch == 1
    assert main(["audit", "verify", str(path)]) == 1
    assert "DIFFERS" in capsys.readouterr().out
