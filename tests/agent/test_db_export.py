"""`gpupool db export` and `import`: all of it comes back, of one moment; nothing of a changed file does."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from journal_scene import COLLATERAL, EPOCHS, KEY, OWN, WORK_RECORDS, contents, own_config, window, written_journal
from pool_fixture import POOL, Author, key, work

from agent.cli import main
from agent.config import Config, load_config
from agent.db.archive import FRAME_BYTES_MAX, TAG, export_journal, import_journal
from agent.errors import DENIED, InvalidExportError, JournalError, KeyDeniedError
from agent.journal import WINDOWS_KEPT, open_journal
from gossip import codec
from gossip.records import ATTACHMENT_BYTES_MAX

FIRST = (TAG, POOL.network, POOL.account, KEY.public)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written_journal(tmp_path / "journal.sqlite")


def exported(path: Path) -> Path:
    target = path.with_name("export")
    export_journal(path, target, **OWN)
    return target


def imported(source: Path, name: str = "new.sqlite", **whose: object) -> Path:
    made = source.with_name(name)
    import_journal(source, made, tell=lambda _: None, **(OWN | whose))
    return made


def written(path: Path, *rows: Sequence[object], first: object = FIRST, count: int | None = None) -> Path:
    """An export of these rows whose end matches."""
    frames = [codec.encode(row) for row in (first, *rows)]
    end = codec.encode(("end", len(frames) if count is None else count, hashlib.sha256(b"".join(frames)).digest()))
    path.write_bytes(gzip.compress(b"".join(len(each).to_bytes(4, "big") + each for each in [*frames, end])))
    return path


def test_all_of_it_comes_back(path: Path) -> None:
    source = exported(path)
    assert stat.S_IMODE(source.stat().st_mode) == 0o600
    made = imported(source)
    assert contents(made) == contents(path)
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert sorted(each.name for each in made.parent.iterdir() if "new" in each.name) == [
        "new.sqlite",
        "new.sqlite.lock",
    ]


def test_the_same_journal_gives_the_same_export(path: Path) -> None:
    first = exported(path).read_bytes()
    path.with_name("export").unlink()
    assert exported(path).read_bytes() == first


def test_what_was_imported_does_not_count_as_knowing_the_own_log(path: Path) -> None:
    with closing(open_journal(path, **OWN)) as journal:
        assert journal.is_own_log_known
    made = imported(exported(path))
    with closing(open_journal(made, **OWN)) as journal:
        assert not journal.is_own_log_known
        journal.note_own_log_known()
    with closing(open_journal(made, **OWN)) as journal:
        assert journal.is_own_log_known


def test_it_is_of_one_moment_while_the_agent_writes(path: Path) -> None:
    with closing(open_journal(path, **OWN)) as journal:
        source = exported(path)
        journal.drop_window(journal.next_window()[0])
        with closing(open_journal(imported(source), **OWN)) as made:
            assert made.windows_waiting() == 2


def test_nothing_is_overwritten(path: Path) -> None:
    source = exported(path)
    before = source.read_bytes(), path.read_bytes()
    with pytest.raises(JournalError, match="exists already; an export is never overwritten"):
        export_journal(path, source, **OWN)
    with pytest.raises(JournalError, match="never overwritten"):
        import_journal(source, path, tell=lambda _: None, **OWN)
    assert (source.read_bytes(), path.read_bytes()) == before


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE record SET wire = zeroblob(200) WHERE seq = 7",
        "UPDATE attachments SET body = x'00'",
        "UPDATE landed SET checkpoint = zeroblob(9) WHERE epoch = 2",
        "UPDATE meter SET state = x'00'",
    ],
)
def test_a_damaged_journal_is_not_exported(path: Path, damage: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(damage)
    with pytest.raises(JournalError, match=r"damaged.*gpupool db check"):
        exported(path)
    assert not path.with_name("export").exists()


def test_a_place_that_cannot_be_written(path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be written"):
        export_journal(path, path / "export", **OWN)


def test_a_flipped_or_missing_byte_anywhere_is_refused_and_leaves_nothing(path: Path) -> None:
    source = exported(path)
    whole, draw = source.read_bytes(), random.Random(20261121)
    spoilt = [whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :] for at in draw.sample(range(10, len(whole)), 25)]
    spoilt += [whole[:at] for at in (0, 9, len(whole) // 2, len(whole) - 9, len(whole) - 1)]
    for each in spoilt:
        source.write_bytes(each)
        with pytest.raises(InvalidExportError, match=str(source)):
            imported(source)
    assert {p.name for p in path.parent.iterdir()} - {f"{path.name}{s}" for s in ("", "-wal", "-shm", ".lock")} == {
        "export"
    }


def good_record() -> bytes:
    return Author(1).prove().wire


HOSTILE = [
    pytest.param([], {"first": ("gpupool/journal/2", *FIRST[1:])}, "no export of a journal", id="another version"),
    pytest.param([], {"first": (*FIRST[:3], key(1).public)}, "of another node key", id="another key"),
    pytest.param([], {"first": "text"}, "row: expected an array", id="no array"),
    pytest.param([], {"count": 2}, "its end does not match", id="wrong count"),
    pytest.param([("unknown", b"")], {}, "'unknown' of this form is unknown", id="unknown kind"),
    pytest.param([(b"record", b"")], {}, "of this form is unknown", id="kind as bytes"),
    pytest.param([("record",)], {}, "of this form is unknown", id="no column"),
    pytest.param([("record", "text")], {}, "of this form is unknown", id="wrong type"),
    pytest.param([("record", b"garbage")], {}, "encoding", id="no record"),
    pytest.param([("record", good_record()[:-1] + b"\xff")], {}, "signature", id="bad signature"),
    pytest.param([("record", good_record())], {}, "is not here", id="evidence without its attachment"),
    pytest.param([("attachment", bytes(ATTACHMENT_BYTES_MAX + 1))], {}, "of this form is unknown", id="large"),
    pytest.param([("message", 1, "attest", b"")], {}, "encoding", id="no message"),
    pytest.param([("message", True, "x", b"")], {}, "no message of an epoch", id="unknown message"),
    pytest.param([("landed", bytes(32), b"")], {}, "encoding", id="no checkpoint"),
    pytest.param([("outcome", bytes(32), b"")], {}, "encoding", id="no outcome"),
    pytest.param([("witness", b"short", 1)], {}, "node_key: expected 32 bytes", id="short key"),
    pytest.param([("witness", bytes(32), 1 << 48)], {}, "seconds: expected", id="many seconds"),
    pytest.param([("witness", bytes(32), -1)], {}, "seconds: expected", id="negative"),
    pytest.param([("meter", "engine", b"[]")], {}, "meter state", id="no state"),
    pytest.param([("meter", "e" * 65, b"{}")], {}, "of this form is unknown", id="long source"),
    pytest.param([("window", b"{}")], {}, "neither a window nor receipts", id="nothing pending"),
    pytest.param([("window", b'{"window": {}}')], {}, "missing required field", id="no window"),
    pytest.param([("window", b'{"receipts": {}}')], {}, "missing required field", id="no receipts"),
    pytest.param([("window", b'{"deeds": {}}')], {}, "unknown field", id="something else pending"),
    pytest.param([(("deep",), b"")], {}, "of this form is unknown", id="kind as array"),
    pytest.param([("end", 5, b"")], {}, "its end does not match", id="end too early"),
]


@pytest.mark.parametrize(("rows", "form", "said"), HOSTILE)
def test_a_file_made_to_deceive_is_refused(tmp_path: Path, rows: list, form: dict, said: str) -> None:
    source = written(tmp_path / "export", *rows, **form)
    with pytest.raises(InvalidExportError, match=said):
        imported(source)
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


def test_a_log_with_a_gap_is_refused(tmp_path: Path) -> None:
    author = Author(0)
    wires = [author.append(work(author.end_s + i, author.end_s + i + 1, 1, bytes(32))).wire for i in range(3)]
    whole = written(tmp_path / "whole", *(("record", wire) for wire in wires))
    assert imported(whole).exists()
    gap = written(tmp_path / "gap", ("record", wires[0]), ("record", wires[2]))
    with pytest.raises(InvalidExportError, match="follows none that is here"):
        imported(gap, "other.sqlite")


def test_a_long_row_is_refused_before_it_is_read(tmp_path: Path) -> None:
    source = tmp_path / "export"
    source.write_bytes(gzip.compress((FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"x"))
    with pytest.raises(InvalidExportError, match=f"at most {FRAME_BYTES_MAX}"):
        imported(source)
    for content in (b"", b"text", b"\x1f\x8b" + bytes(30)):
        source.write_bytes(content)
        with pytest.raises(InvalidExportError, match=str(source)):
            imported(source)
    with pytest.raises(InvalidExportError, match="cannot be read: Is a directory"):
        import_journal(tmp_path, tmp_path / "x.sqlite", tell=lambda _: None, **OWN)


def test_more_behind_the_end_is_refused(path: Path) -> None:
    source = exported(path)
    source.write_bytes(source.read_bytes() + gzip.compress(b"x"))
    with pytest.raises(InvalidExportError, match="its end does not match"):
        imported(source)


def test_windows_are_bounded(tmp_path: Path) -> None:
    rows = [("meter", "engine", b'{"start_s":1,"cursor_s":2}'), *[("window", window(1))] * (WINDOWS_KEPT + 1)]
    with pytest.raises(InvalidExportError, match="'window' of this form"):
        imported(written(tmp_path / "export", *rows))


# The commands.


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return own_config(tmp_path / "agent")


def test_there_and_back(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_config(config.path).journal_file == config.journal_file
    file = tmp_path / "backup"
    command = ["--config", str(config.path), "--json", str(file)]
    assert main(["db", "export", *command]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(file), "rows": {}}
    assert main(["db", "import", *command]) == 1
    assert "never overwritten" in capsys.readouterr().err
    config.journal_file.unlink()
    assert main(["db", "export", "--config", str(config.path), str(tmp_path / "other")]) == 65
    assert "missing" in capsys.readouterr().err
    assert main(["db", "import", *command]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["file"] == str(config.journal_file)
    assert "more than two thirds of the other operators" in output.err
    with closing(open_journal(config.journal_file, **OWN)) as journal:
        assert not journal.is_own_log_known


def test_the_scene_has_something_of_everything(path: Path) -> None:
    counts = export_journal(path, path.with_name("export"), **OWN)
    assert counts == {
        "record": 2 * (WORK_RECORDS + 2),
        "attachment": len(COLLATERAL),
        "message": 4 * EPOCHS,
        "outcome": 1,
        "landed": EPOCHS,
        "witness": 2,
        "meter": 1,
        "window": 2,
    }


@pytest.mark.parametrize("verb", [["check"], ["export", "backup"]])
def test_a_job_that_may_not_read_the_key_can_copy_the_journal(
    config: Config, monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    """Under systemd the key is root's, and the journal the agent's user's."""

    def denied(path: Path) -> None:
        raise KeyDeniedError(f"{path}: {DENIED}")

    monkeypatch.setattr("agent.db.verbs.load_key", denied)
    monkeypatch.chdir(config.path.parent)
    assert main(["db", *verb, "--config", str(config.path)]) == 0
    assert main(["db", "import", "backup", "--config", str(config.path)]) == 2, "who makes a journal needs the key"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_root_imports_is_the_agents_users(path: Path) -> None:
    source = exported(path)
    os.chown(path.parent, 12345, 12345)
    made = imported(source).stat()
    assert (made.st_uid, made.st_gid) == (12345, 12345)
