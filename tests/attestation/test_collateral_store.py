"""What the store admits, keeps and gives back, whatever is offered to it and whatever happens to its folder."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import errors as e
from attestation.collateral import Collateral
from attestation.collateral_key import RENEWAL_S_MIN, CollateralKey, Issue, PckCa, Update, require_not_older
from attestation.collateral_store import BUNDLE_BYTES_MAX, BUNDLE_ENTRIES_MAX, CollateralStore
from attestation.errors import CollateralBundleError, CollateralStoreError, CollateralUnknownError
from attestation.providers.software import SOFTWARE_MACHINE

NOW = 1_800_000_000
DAY = 86_400
HOUR = 3600
KEY = CollateralKey(fmspc=SOFTWARE_MACHINE.fmspc, ca=PckCa.PLATFORM)
EARLY = replace(KEY, update=Update.EARLY)


@pytest.fixture
def store(forge: Any, tmp_path: Path) -> CollateralStore:
    return CollateralStore(tmp_path / "collateral", root=forge.root.der)


def iso(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def issued(forge: Any, shift_s: int = 0, evaluation: int = 5, **shifts: int) -> Collateral:
    """Collateral issued a day before now; `shifts` (seconds, or numbers) move single parts of it."""
    base = NOW - DAY + shift_s

    def dated(part: str) -> Any:
        at = base + shifts.get(f"{part}_s", 0)
        number = evaluation + shifts.get(f"{part}_evaluation", 0)
        return lambda tree: tree.update(issueDate=iso(at), nextUpdate=iso(at + 3 * DAY), tcbEvaluationDataNumber=number)

    def listed(issuer: Any, part: str) -> bytes:
        at = base + shifts.get(f"{part}_s", 0)
        return bytes(forge.crl(issuer, this_s=at, next_s=at + 3 * DAY))

    made: Collateral = forge.collateral(
        dated("tcb_info"),
        dated("qe_identity"),
        root_ca_crl=listed(forge.root, "root_crl"),
        pck_crl=listed(forge.pck_issuer, "pck_crl"),
    )
    return made


PARTS = [field.name for field in fields(Issue)]


# Rule 1: what is admitted.


def test_what_is_offered_is_the_newest(forge: Any, store: CollateralStore) -> None:
    collateral = issued(forge)
    assert store.newest(KEY, NOW) is None
    store.offer(KEY, collateral, NOW)
    held = store.newest(KEY, NOW + 5)
    assert held is not None
    assert (held.collateral, held.kept_s) == (collateral, NOW)
    assert store.get(collateral.digest) == collateral
    assert store.get(bytes(32)) is None
    assert [path.name for path in store.folder.glob("[0-9a-f]*.json") if path.name != "index.json"] == [
        f"{collateral.digest.hex()}.json"
    ]


def test_only_authentic_valid_collateral_of_the_key_is_admitted(forge: Any, store: CollateralStore) -> None:
    good = issued(forge)
    other = forge.certificate("Intel SGX Root CA", None, is_ca=True)
    cases: list[tuple[type[Exception], CollateralKey, Collateral, int]] = [
        (e.FmspcMismatchError, replace(KEY, fmspc=bytes(6)), good, NOW),
        (e.PckIssuerMismatchError, replace(KEY, ca=PckCa.PROCESSOR), good, NOW),
        (e.CollateralExpiredError, KEY, good, NOW + 10 * DAY),
        (e.CollateralNotYetValidError, KEY, good, NOW - 2 * DAY),
        (e.TcbInfoSignatureError, KEY, replace(good, tcb_info=good.tcb_info + b" "), NOW),
        (e.CollateralChainError, KEY, replace(good, tcb_info_issuer_chain=good.pck_crl_issuer_chain), NOW),
    ]
    for error, key, collateral, now in cases:
        with pytest.raises(error):
            store.offer(key, collateral, now)
    with pytest.raises(e.CollateralChainRootError):
        CollateralStore(store.folder, root=other.der).offer(KEY, good, NOW)
    assert not store.folder.exists()


def test_what_is_over_is_not_given(forge: Any, store: CollateralStore) -> None:
    store.offer(KEY, issued(forge), NOW)
    assert store.newest(KEY, NOW + 2 * DAY) is not None
    assert store.newest(KEY, NOW + 2 * DAY + 1) is None


# Rule 2: never back.


@pytest.mark.parametrize("part", PARTS)
def test_no_part_may_be_older(forge: Any, store: CollateralStore, part: str) -> None:
    held = issued(forge)
    store.offer(KEY, held, NOW)
    with pytest.raises(e.CollateralRollbackError) as caught:
        store.admit(KEY, issued(forge, HOUR, 6, **{part: -2 * HOUR if part.endswith("_s") else -2}), NOW)
    what = {"root": "root revocation", "pck": "PCK revocation", "tcb": "TCB info", "qe": "QE identity"}
    assert what[part.split("_")[0]] in str(caught.value)
    assert str(caught.value).count(", held") == 1
    newest = store.newest(KEY, NOW)
    assert newest is not None
    assert newest.collateral == held


def test_as_old_or_newer_is_taken(forge: Any, store: CollateralStore) -> None:
    for collateral in (issued(forge), issued(forge), issued(forge, HOUR), issued(forge, HOUR, 6)):
        store.offer(KEY, collateral, NOW)
        newest = store.newest(KEY, NOW)
        assert newest is not None
        assert newest.collateral == collateral


def test_the_same_again_is_kept_once(forge: Any, store: CollateralStore) -> None:
    collateral = issued(forge)
    for now in (NOW, NOW + HOUR):
        store.offer(KEY, collateral, now)
    held = store.newest(KEY, NOW + HOUR)
    assert held is not None
    assert held.kept_s == NOW + HOUR
    assert store.export([collateral.digest]) == store.export()


def test_updates_are_kept_apart(forge: Any, store: CollateralStore) -> None:
    early, standard = issued(forge, HOUR, 7), issued(forge, 0, 6)
    store.offer(EARLY, early, NOW)
    store.offer(KEY, standard, NOW)
    found = {key.update: store.newest(key, NOW) for key in (EARLY, KEY)}
    assert {update: held and held.collateral for update, held in found.items()} == {
        Update.EARLY: early,
        Update.STANDARD: standard,
    }
    with pytest.raises(e.CollateralRollbackError):
        store.offer(EARLY, standard, NOW)


issues = st.builds(Issue, **{name: st.integers(0, 3) for name in PARTS})


@given(issues, issues)
def test_not_older_means_every_part(offered: Issue, held: Issue) -> None:
    older = [name for name in PARTS if getattr(offered, name) < getattr(held, name)]
    if not older:
        require_not_older(offered, held)
    else:
        with pytest.raises(e.CollateralRollbackError) as caught:
            require_not_older(offered, held)
        assert str(caught.value).count(", held") == len(older)


def test_half_of_the_shortest_part_is_its_time(forge: Any, store: CollateralStore) -> None:
    held = store.offer(KEY, issued(forge, qe_identity_s=-DAY), NOW)
    assert held.due_s == NOW + DAY // 2
    assert store.admit(KEY, held.collateral, NOW + DAY - 60).due_s == NOW + DAY - 60 + RENEWAL_S_MIN


def test_a_clock_put_back_makes_it_due(forge: Any, store: CollateralStore) -> None:
    store.offer(KEY, issued(forge), NOW)
    held = store.newest(KEY, NOW - HOUR)
    assert held is not None
    assert held.due_s < NOW - HOUR


# Rule 3: the folder.


@pytest.mark.parametrize("index", [b"", b"[", b"{}", b"[1]", b"\xff", b"[" * 100_000, b" " * 2_000_000])
def test_a_damaged_index_is_an_empty_one(forge: Any, store: CollateralStore, index: bytes) -> None:
    collateral = issued(forge)
    store.offer(KEY, collateral, NOW)
    (store.folder / "index.json").write_bytes(index)
    assert store.newest(KEY, NOW) is None
    store.offer(KEY, collateral, NOW)
    assert store.newest(KEY, NOW) is not None


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff", b"x" * 300_000])
def test_a_damaged_file_is_not_there_and_lets_nothing_old_in(
    forge: Any, store: CollateralStore, content: bytes | None
) -> None:
    collateral = issued(forge)
    store.offer(KEY, collateral, NOW)
    path = store.folder / f"{collateral.digest.hex()}.json"
    path.unlink() if content is None else path.write_bytes(content)
    assert store.newest(KEY, NOW) is None
    assert store.get(collateral.digest) is None
    with pytest.raises(CollateralUnknownError):
        store.export()
    with pytest.raises(e.CollateralRollbackError):
        store.offer(KEY, issued(forge, -HOUR), NOW)
    store.offer(KEY, collateral, NOW)
    assert store.get(collateral.digest) == collateral


def test_a_file_under_another_name_is_not_given(forge: Any, store: CollateralStore) -> None:
    held, other = issued(forge), issued(forge, HOUR)
    store.offer(KEY, held, NOW)
    (store.folder / f"{held.digest.hex()}.json").write_bytes(other.to_json())
    assert store.get(held.digest) is None


@pytest.mark.parametrize("renames", [0, 1])
def test_a_power_cut_leaves_the_old_one(
    forge: Any, store: CollateralStore, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    old, new = issued(forge), issued(forge, HOUR)
    store.offer(KEY, old, NOW)
    rename = Path.rename
    done: list[Path] = []

    def cut(path: Path, target: Path) -> Path:
        if len(done) >= renames:
            raise KeyboardInterrupt
        done.append(target)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", cut)
        with pytest.raises(KeyboardInterrupt):
            store.offer(KEY, new, NOW)
    assert list(store.folder.glob(".*.new"))
    newest = store.newest(KEY, NOW)
    assert newest is not None
    assert newest.collateral == old
    store.offer(KEY, issued(forge, 2 * HOUR), NOW)
    assert not list(store.folder.glob(".*.new"))
    assert store.get(new.digest) is None


def test_each_file_is_on_the_disk_before_the_next_one(
    forge: Any, store: CollateralStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def sync(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append(f"rename {target.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", renamed)
    name = f"{store.offer(KEY, issued(forge), NOW).collateral.digest.hex()}.json"
    assert done == [
        f"sync {store.folder.parent.name}",
        *(
            step
            for file in (name, "index.json")
            for step in (f"sync .{file}.new", f"rename {file}", f"sync {store.folder.name}")
        ),
    ]


def test_what_has_run_out_binds_nobody(forge: Any, store: CollateralStore) -> None:
    """Collateral of another update, imported by mistake, must not keep out the right one for ever."""
    early = issued(forge, evaluation=21)
    store.offer(KEY, early, NOW)
    with pytest.raises(e.CollateralRollbackError):
        store.offer(KEY, issued(forge, evaluation=19), NOW)
    later = NOW + 3 * DAY
    right = issued(forge, 3 * DAY, evaluation=19)
    assert store.offer(KEY, right, later).collateral == right


def test_a_full_disk_is_the_operators_fault(
    forge: Any, store: CollateralStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = issued(forge)
    store.offer(KEY, old, NOW)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CollateralStoreError, match="No space left") as caught:
        store.offer(KEY, issued(forge, HOUR), NOW)
    assert str(store.folder) in str(caught.value)
    newest = store.newest(KEY, NOW)
    assert newest is not None
    assert newest.collateral == old


def test_a_folder_that_cannot_be_is_the_operators_fault(forge: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = CollateralStore(tmp_path / "file" / "below", root=forge.root.der)
    assert store.newest(KEY, NOW) is None
    with pytest.raises(CollateralStoreError):
        store.offer(KEY, issued(forge), NOW)


def test_another_process_kept_a_newer_one(forge: Any, store: CollateralStore) -> None:
    held = store.admit(KEY, issued(forge), NOW)
    store.offer(KEY, issued(forge, HOUR), NOW)
    with pytest.raises(e.CollateralRollbackError):
        store.keep(held)


# Rule 4: bounds.


def test_the_oldest_go_and_never_the_newest_of_a_key(forge: Any, tmp_path: Path) -> None:
    store = CollateralStore(tmp_path, root=forge.root.der, files_max=3)
    early = issued(forge)
    store.offer(EARLY, early, NOW)
    made = [issued(forge, n * 60) for n in range(1, 6)]
    for collateral in made:
        store.offer(KEY, collateral, NOW)
    assert [collateral for collateral in [early, *made] if store.get(collateral.digest)] == [early, *made[-2:]]


def test_foreign_files_are_left_alone(forge: Any, store: CollateralStore) -> None:
    store.folder.mkdir()
    foreign = [store.folder / name for name in ("notes.json", "abc.json", ".bashrc", "readme.new")]
    for path in foreign:
        path.write_text("mine")
    store.offer(KEY, issued(forge), NOW)
    assert all(path.exists() for path in foreign)


# Rule 5: bundles.


def test_a_bundle_goes_to_another_host(forge: Any, store: CollateralStore, tmp_path: Path) -> None:
    older, newer = issued(forge), issued(forge, HOUR)
    for key, collateral in ((KEY, older), (KEY, newer), (EARLY, newer)):
        store.offer(key, collateral, NOW)
    offline = CollateralStore(tmp_path / "offline", root=forge.root.der)
    report = offline.import_bundle(store.export(), NOW)
    assert (set(report.kept), report.refused) == ({KEY, EARLY}, ())
    for key in (KEY, EARLY):
        held = offline.newest(key, NOW)
        assert held is not None
        assert held.collateral == newer
    assert offline.get(older.digest) is None
    assert offline.import_bundle(store.export([older.digest, newer.digest]), NOW).refused[0][0] == 1
    assert offline.export() == store.export()


def test_a_bad_line_does_not_stop_the_others(forge: Any, store: CollateralStore, tmp_path: Path) -> None:
    store.offer(KEY, issued(forge), NOW)
    store.offer(EARLY, issued(forge), NOW)
    first, second = store.export().splitlines()
    tree = json.loads(first)
    edited = tree | {"collateral": tree["collateral"] | {"tcb_info": "{}"}}
    bundle = [json.dumps(edited).encode(), b'{"update":"daily"}', b"[" * 100_000, b"\xff", first, b"", second, b""]
    offline = CollateralStore(tmp_path / "offline", root=forge.root.der)
    report = offline.import_bundle(b"\n".join(bundle), NOW)
    assert report.kept == (KEY, EARLY)
    assert [(number, type(error)) for number, error in report.refused] == [
        (1, e.TcbInfoSignatureError),
        (2, CollateralBundleError),
        (3, CollateralBundleError),
        (4, CollateralBundleError),
    ]


@pytest.mark.parametrize("bundle", [b"", b"\n\n", b"{}\n" * (BUNDLE_ENTRIES_MAX + 1), b"{}" + b" " * BUNDLE_BYTES_MAX])
def test_a_bundle_is_bounded(store: CollateralStore, bundle: bytes) -> None:
    with pytest.raises(CollateralBundleError):
        store.import_bundle(bundle, NOW)


def test_what_is_not_held_cannot_be_exported(forge: Any, store: CollateralStore) -> None:
    store.offer(KEY, issued(forge), NOW)
    with pytest.raises(CollateralUnknownError, match="00000000"):
        store.export([bytes(32)])


@given(st.binary(max_size=300))
def test_no_bundle_raises_anything_else(forge: Any, bundle: bytes) -> None:
    store = CollateralStore(Path("/nonexistent/never/written"), root=forge.root.der)
    try:
        report = store.import_bundle(b'{"update":"early","collateral":' + bundle, NOW)
    except CollateralBundleError:
        return
    assert report.kept == ()
