"""`gpupool db check`: what it finds, what it calls good, how it says so, beside an agent that runs."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from journal_scene import EPOCHS, KEY, OWN, WORK_RECORDS, contents, fill_journal, own_config, written_journal
from pool_fixture import POOL, evidence, key

from agent import journal_file
from agent.cli import main
from agent.config import Config
from agent.db.examining import FINDINGS_MAX, Examination, examine
from agent.errors import JournalError
from agent.journal import open_journal
from gossip.records import PoolId, make_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written_journal(tmp_path / "journal.sqlite")


def examined(path: Path, told: list[str] | None = None) -> Examination:
    with closing(journal_file.connect_reading(path)) as database:
        return examine(database, KEY.public, POOL, (told if told is not None else []).append)


def change(path: Path, statement: str, parameters: tuple[object, ...] = ()) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute(statement, parameters).rowcount > 0


def test_a_sound_journal(path: Path) -> None:
    told: list[str] = []
    found = examined(path, told)
    assert found.findings == []
    assert found.good == {
        "outcome": 1,
        "landed": EPOCHS,
        "record": 2 * (WORK_RECORDS + 2),
        "message": 4 * EPOCHS,
        "attachments": 2,
        "named": 2,
        "witness": 2,
        "meter": 1,
        "window": 2,
        "run": 1,
    }
    assert found.own_head.seq == WORK_RECORDS + 2
    assert found.settled_epoch == EPOCHS
    assert "checking record" in told


def test_an_agent_may_run_and_write_meanwhile(path: Path) -> None:
    with closing(open_journal(path, **OWN)) as journal, closing(journal_file.connect_reading(path)) as database:
        assert database.execute("SELECT count(*) FROM window").fetchone() == (2,)
        journal.drop_window(journal.next_window()[0])
        found = examine(database, KEY.public, POOL, lambda _: None)
        assert (found.damaged, found.good["window"]) == (0, 2), "one moment"
        assert journal.windows_waiting() == 1


# Row by row: what was changed, and what is said. Each leaves all else good.
DAMAGE = [
    ("UPDATE record SET wire = zeroblob(200) WHERE seq = 7 AND node_key = ?", "record: 7 of", "checksum", 2),
    ("UPDATE record SET seq = 70 WHERE seq = 7 AND node_key = ?", "record: 70 of", "checksum", 2),
    ("DELETE FROM record WHERE seq = 7 AND node_key = ?", "record: 8 of", "follows none that is here", 1),
    (
        "UPDATE landed SET checkpoint = zeroblob(100) WHERE epoch = 2 AND ? != ''",
        "landed: settlement of epoch 2",
        "",
        1,
    ),
    ("UPDATE landed SET epoch = 9 WHERE epoch = 3 AND ? != ''", "landed: settlement of epoch 9", "another epoch", 1),
    ("UPDATE outcome SET checkpoint = zeroblob(9) WHERE ? != ''", "outcome: of epoch 4", "", 1),
    ("UPDATE outcome SET epoch = 5 WHERE ? != ''", "outcome: of epoch 5", "another epoch", 1),
    ("UPDATE message SET wire = zeroblob(9) WHERE epoch = 1 AND kind = 'proposal' AND ? != ''", "message: ", "", 1),
    ("UPDATE message SET epoch = 4 WHERE epoch = 1 AND kind = 'proposal' AND ? != ''", "message: ", "checksum", 1),
    ("UPDATE attachments SET body = x'00' WHERE ? != ''", "attachments: ", "digest", 2),
    ("DELETE FROM attachments WHERE ? != ''", "named: ", "is not here", 2),
    ("DELETE FROM named WHERE node_key = ?", "named: ", "is not noted", 1),
    ("UPDATE witness SET seconds = seconds + 1 WHERE node_key = ?", "witness: ", "checksum", 1),
    ("UPDATE meter SET state = x'7b' WHERE ? != ''", "meter: engine", "checksum", 1),
    ("UPDATE window SET body = x'7b7d' WHERE id = 1 AND ? != ''", "window: 1", "checksum", 1),
]


@pytest.mark.parametrize(("statement", "where", "what", "findings"), DAMAGE)
def test_a_row_that_was_changed_is_found(path: Path, statement: str, where: str, what: str, findings: int) -> None:
    sound = examined(path).good
    change(path, statement, (KEY.public,))
    found = examined(path)
    assert found.damaged == findings
    assert all(where in each or "follows none" in each for each in found.findings)
    assert any(what in each for each in found.findings)
    assert sum((sound - found.good).values()) <= 4, "all else is good"


def test_an_own_record_under_a_bad_signature_is_found(path: Path) -> None:
    """Its row matches its checksum: whoever wrote it signed with another key."""
    other = make_record(key(5), POOL, 33, bytes(32), evidence())
    forged = other.wire.replace(key(5).public, KEY.public)
    row = journal_file.sealed(KEY.public, 33, b"?" * 32, forged)
    change(path, "INSERT INTO record VALUES (?, ?, ?, ?, ?)", row)
    assert "kept under another name" in examined(path).findings[0]


def test_findings_are_bounded_and_all_counted(path: Path) -> None:
    row = b"\x01" * 32
    with closing(sqlite3.connect(path)) as database, database:
        rows = [(bytes([i % 256, i // 256]) + row[2:], i, 0) for i in range(3 * FINDINGS_MAX)]
        database.executemany("INSERT INTO witness VALUES (?, ?, ?)", rows)
    found = examined(path)
    assert found.damaged == 3 * FINDINGS_MAX
    assert len(found.findings) == FINDINGS_MAX


def test_a_flipped_byte_anywhere_is_found_or_changes_no_answer(path: Path) -> None:
    """Every region of the file: the agent refuses it, or answers all but a flipped name of an attachment."""
    whole, sound = path.read_bytes(), contents(path)
    draw, refused, found = random.Random(20261121), 0, 0
    offsets = [page + draw.randrange(4096) for page in range(0, len(whole), 4096) for _ in range(4)]
    for at in offsets:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
        try:
            assert {**sound, "attachments": 0} == {**contents(path), "attachments": 0}, f"byte {at}"
        except JournalError as error:
            assert any(word in str(error) for word in ("damaged", "another", "cannot be")), str(error)
            refused += 1
        found += is_found(path)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert found >= refused > len(offsets) // 4


def is_found(path: Path) -> bool:
    """Whether the check would end with exit code 1."""
    try:
        with journal_file.explaining(path, "read"), closing(journal_file.connect_reading(path)) as database:
            journal_file.require_identity(path, database, KEY.public, POOL)
            return examine(database, KEY.public, POOL, lambda _: None).damaged > 0
    except JournalError:
        return True


# The command.


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return own_config(tmp_path / "agent")


def check(config: Config, *more: str) -> int:
    return main(["db", "check", "--config", str(config.path), *more])


def test_the_command_says_that_a_journal_is_sound(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(config) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{config.journal_file}: sound\n")
    assert "own log: up to record 0" in output.out
    assert output.err == "", "there is no terminal to draw at"
    assert check(config, "--json") == 0
    assert json.loads(capsys.readouterr().out)["sound"] is True


def test_the_command_says_what_is_damaged_and_what_to_do(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(open_journal(config.journal_file, **OWN)) as journal:
        fill_journal(journal)
    change(config.journal_file, "UPDATE meter SET state = x'7b'")
    assert check(config) == 1
    output = capsys.readouterr().out
    assert "damaged in 1 places\n  meter: engine: a row does not match its checksum" in output
    assert f"good: 1 outcomes that may land, {EPOCHS} settlements, {2 * (WORK_RECORDS + 2)} records" in output
    assert "next: stop the agent" in output
    assert check(config, "--json") == 1
    value = json.loads(capsys.readouterr().out)
    assert (value["sound"], value["damaged"], value["settled_epoch"]) == (False, 1, EPOCHS)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "missing. A new agent"),
        (b"no database" * 999, "damaged (file is not a database)"),
        (b"", "damaged (no such table: meta)"),
    ],
)
def test_what_is_no_journal(
    config: Config, capsys: pytest.CaptureFixture[str], content: bytes | None, said: str
) -> None:
    config.journal_file.unlink()
    if content is not None:
        config.journal_file.write_bytes(content)
    assert check(config) == 65, "systemd does not start an agent again over this"
    assert said in capsys.readouterr().err


def test_wrong_settings_are_usage(tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "check", "--config", str(tmp_path / "none.toml")]) == 2
    config.resolve(config.identity.node_key_file).unlink()
    assert check(config) == 2
    assert "node.key" in capsys.readouterr().err


def test_a_journal_of_another_pool_is_refused(path: Path) -> None:
    with closing(journal_file.connect_reading(path)) as database, pytest.raises(JournalError, match="another pool"):
        journal_file.require_identity(path, database, KEY.public, PoolId(POOL.network, bytes(32)))
