"""Collateral kept on disk: which is the newest for a platform, and whether an offered one may take its place.

What is offered (by a service, a peer, a bundle) is untrusted, and so are the folder's files: what cannot be
read is as if it were not there, and is fetched anew.

1. Admitted is what verifies up to the root, is valid now, and is of the key that it is offered for.
2. Never back: nothing in it may be older than in the newest of its key, part by part: the issue date of each
   document and list, the evaluation numbers. Early and standard updates are keys of their own. Once the newest
   has run out it binds nobody: no document says which update it is of, so a mistake must not last.
3. A file is named by the digest of its content, written aside and renamed. The index is renamed after the
   files that it names; it repeats what rule 2 compares, so a damaged file lets nothing old in. A lost index
   does: then the store starts empty, and the floor of evaluation numbers in the policy remains.
4. A bounded number of files; the newest of a key is never the one that goes.
5. A bundle has one line of JSON per collateral, at most 64; each goes through rules 1 and 2.

Elsewhere: what a key is, what is compared (`collateral_key`), fetching (`pcs`), when (`collateral_source`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from attestation.collateral import COLLATERAL_BYTES_MAX, Collateral, verify_collateral
from attestation.collateral_key import CollateralKey, Held, Issue, Update, key_of, require_not_older
from attestation.errors import (
    AttestationError,
    CollateralBundleError,
    CollateralStoreError,
    CollateralUnknownError,
    FmspcMismatchError,
    InvalidCollateralError,
    PckIssuerMismatchError,
)

FILES_MAX = 256
BUNDLE_ENTRIES_MAX = 64
BUNDLE_BYTES_MAX = 4 * 1024 * 1024

_INDEX = "index.json"
_INDEX_BYTES_MAX = 1024 * 1024
_OWN_FILE = re.compile(r"[0-9a-f]{64}\.json|\.[0-9a-z]+\.json\.new")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleEntry:
    """A line of a bundle: unverified collateral, and the update channel that it is said to be of."""

    update: Update
    collateral: Collateral


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """What became of a bundle: the keys that it renewed, and why which line (from 1) was refused."""

    kept: tuple[CollateralKey, ...]
    refused: tuple[tuple[int, AttestationError], ...]


class CollateralStore:
    """Collateral in `folder` (made 0700 when first needed) that verifies up to `root` (DER).

    Each call reads the disk, so several processes may share the folder; writers wait for one another.
    """

    def __init__(self, folder: Path, *, root: bytes, files_max: int = FILES_MAX) -> None:
        self.folder = folder
        self._root = root
        self._files_max = files_max

    def newest(self, key: CollateralKey, now: int) -> Held | None:
        """The newest collateral of `key` if it can be used at `now` (Unix seconds); some milliseconds."""
        record = _last(self._records(), key)
        collateral = None if record is None else self.get(record.digest)
        if record is None or collateral is None:
            return None
        # The clock was put back since: nobody can say how long it is held, so it is due.
        kept_s = record.kept_s if record.kept_s <= now else 0
        try:
            return self._verified(key, collateral, now, kept_s=kept_s)
        except InvalidCollateralError as error:
            log.info("collateral of %s cannot be used any more: %s", key, error)
            return None

    def get(self, digest: bytes) -> Collateral | None:
        """The collateral of that digest (32 bytes), to be verified by whoever uses it; None if it is not here whole."""
        path = self.folder / f"{digest.hex()}.json"
        try:
            collateral = Collateral.from_json(_read(path, COLLATERAL_BYTES_MAX))
        except FileNotFoundError:
            return None
        except (OSError, InvalidCollateralError) as error:
            log.warning("%s: cannot be read, it is as if it were not here: %s", path, error)
            return None
        return collateral if collateral.digest == digest else None

    def offer(self, key: CollateralKey, collateral: Collateral, now: int) -> Held:
        """Admit `collateral` for `key` at `now` (rules 1 and 2) and keep it.

        Raises:
            InvalidCollateralError: not admitted; the newest stays what it was.
            CollateralStoreError: admitted, and the folder cannot be written.
        """
        held = self.admit(key, collateral, now)
        self.keep(held)
        return held

    def admit(self, key: CollateralKey, collateral: Collateral, now: int) -> Held:
        """Admit `collateral` for `key` at `now` (Unix seconds), or raise `InvalidCollateralError`; writes nothing."""
        held = self._verified(key, collateral, now, kept_s=now)
        newest = _last(self._records(), key)
        if newest is not None:
            newest.require_not_younger_than(held)
        return held

    def keep(self, held: Held) -> None:
        """Make `held` the newest of its key, durably.

        Raises:
            CollateralRollbackError: another process kept a newer one meanwhile.
            CollateralStoreError: the folder cannot be written; the newest stays what it was.
        """
        digest = held.collateral.digest
        record = _Record(key=held.key, digest=digest, kept_s=held.kept_s, issue=held.issue, until_s=held.until_s)
        with self._alone() as folder:
            records = self._records()
            newest = _last(records, held.key)
            if newest is not None:
                newest.require_not_younger_than(held)
            others = [each for each in records if (each.key, each.digest) != (held.key, digest)]
            records = _pruned([*others, record], self._files_max)
            self._write(folder, f"{digest.hex()}.json", held.collateral.to_json())
            self._write(folder, _INDEX, msgspec.json.encode(records))
            self._sweep({f"{each.digest.hex()}.json" for each in records})

    def newest_of_all(self) -> dict[CollateralKey, Collateral | None]:
        """The newest collateral of every key, to be verified by whoever uses it; None where its file is damaged."""
        return {record.key: self.get(record.digest) for record in _newest(self._records())}

    def export(self, digests: Iterable[bytes] | None = None) -> bytes:
        """A bundle of the collateral of these digests (32 bytes each), by default of the newest of every key.

        Raises:
            CollateralUnknownError: a digest is not held.
            CollateralBundleError: more than 64, or more than 4 MiB.
        """
        records, wanted = self._records(), None if digests is None else set(digests)
        chosen = _newest(records) if wanted is None else [each for each in records if each.digest in wanted]
        missing = (wanted or set()) - {record.digest for record in chosen}
        if missing:
            raise CollateralUnknownError(f"{self.folder}: no collateral {min(missing).hex()}")
        if len(chosen) > BUNDLE_ENTRIES_MAX:
            raise CollateralBundleError(f"bundle: {len(chosen)} entries, at most {BUNDLE_ENTRIES_MAX} go into one")
        lines = []
        for record in chosen:
            collateral = self.get(record.digest)
            if collateral is None:
                raise CollateralUnknownError(f"{self.folder}: no whole collateral {record.digest.hex()}")
            lines.append(write_bundle_entry(record.key.update, collateral))
        bundle = b"".join(lines)
        if len(bundle) > BUNDLE_BYTES_MAX:
            raise CollateralBundleError(f"bundle: {len(bundle)} bytes, at most {BUNDLE_BYTES_MAX} go into one")
        return bundle

    def import_bundle(self, bundle: bytes, now: int) -> BundleReport:
        """Offer each line of `bundle` (at most 4 MiB) at `now` (Unix seconds); a bad line does not stop the others.

        Raises:
            CollateralBundleError: the bundle is too long or empty; nothing of it is looked at.
            CollateralStoreError: the folder cannot be written; lines before may have been kept.
        """
        kept, refused = [], []
        for number, line in split_bundle(bundle):
            try:
                kept.append(self._import(read_bundle_entry(line), now))
            except (InvalidCollateralError, CollateralBundleError) as error:
                refused.append((number, error))
        return BundleReport(kept=tuple(kept), refused=tuple(refused))

    def _import(self, entry: BundleEntry, now: int) -> CollateralKey:
        verified = verify_collateral(entry.collateral, root=self._root)
        return self.offer(key_of(verified, entry.update), entry.collateral, now).key

    def _verified(self, key: CollateralKey, collateral: Collateral, now: int, *, kept_s: int) -> Held:
        verified = verify_collateral(collateral, root=self._root)
        verified.require_valid(now)
        found = key_of(verified, key.update)
        if found.fmspc != key.fmspc:
            raise FmspcMismatchError(f"collateral: of {found}, expected {key}")
        if found.ca != key.ca:
            raise PckIssuerMismatchError(f"collateral: of {found}, expected {key}")
        return Held(key=key, collateral=collateral, verified=verified, kept_s=kept_s)

    # The folder.

    def _records(self) -> list[_Record]:
        """The index, oldest first; empty if it is missing or damaged (rule 3)."""
        path = self.folder / _INDEX
        try:
            return msgspec.json.decode(_read(path, _INDEX_BYTES_MAX), type=list[_Record])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            log.warning("%s: cannot be read, collateral is fetched anew: %s", path, error)
            return []

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """Keep other writers out for the length of the block; yields the folder's descriptor."""
        try:
            _make_folder(self.folder)
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                yield folder
            finally:
                os.close(folder)
        except OSError as error:
            raise CollateralStoreError(f"{self.folder}: cannot be written: {error.strerror or error}") from error

    def _write(self, folder: int, name: str, data: bytes) -> None:
        """Write a file whole or not at all, and durably: its name is on the disk before the next one is written."""
        aside = self.folder / f".{name}.new"
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self.folder / name)
        os.fsync(folder)

    def _sweep(self, wanted: set[str]) -> None:
        """Remove the files that nothing names: pruned ones, and what a power cut left behind."""
        for path in self.folder.iterdir():
            if _OWN_FILE.fullmatch(path.name) and path.name not in wanted:
                path.unlink()


def split_bundle(bundle: bytes) -> list[tuple[int, bytes]]:
    """The lines of a bundle (at most 4 MiB) that are not empty, with their numbers from 1 on; not read yet.

    Raises:
        CollateralBundleError: too long, no line, or more than 64.
    """
    if len(bundle) > BUNDLE_BYTES_MAX:
        raise CollateralBundleError(f"bundle: more than {BUNDLE_BYTES_MAX} bytes")
    lines = [(number, line) for number, line in enumerate(bundle.split(b"\n"), 1) if line.strip()]
    if not 0 < len(lines) <= BUNDLE_ENTRIES_MAX:
        raise CollateralBundleError(f"bundle: {len(lines)} entries, expected 1 to {BUNDLE_ENTRIES_MAX}")
    return lines


def write_bundle_entry(update: Update, collateral: Collateral) -> bytes:
    """A line of a bundle."""
    entry = _Entry(update=update, collateral=msgspec.Raw(collateral.to_json()))
    return msgspec.json.encode(entry) + b"\n"


def read_bundle_entry(line: bytes) -> BundleEntry:
    """Read a line of a bundle; nothing in it is verified.

    Raises:
        CollateralBundleError: it has another form.
        CollateralMalformedError: the collateral in it is malformed.
    """
    try:
        entry = msgspec.json.decode(line, type=_Entry)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CollateralBundleError(f"bundle: {error}") from error
    return BundleEntry(update=entry.update, collateral=Collateral.from_json(bytes(entry.collateral)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """A line of the index; the last one with a key is its newest."""

    key: CollateralKey
    digest: bytes
    kept_s: int
    issue: Issue
    until_s: int

    def require_not_younger_than(self, offered: Held) -> None:
        """Raise `CollateralRollbackError` if this is usable still and a part of `offered` is older (rule 2)."""
        if offered.kept_s <= self.until_s:
            require_not_older(offered.issue, self.issue)


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    update: Update
    collateral: msgspec.Raw


def _make_folder(folder: Path) -> None:
    """Make the folder, durably: what it holds is the memory of rule 2."""
    if folder.is_dir():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(above)
    finally:
        os.close(above)


def _newest(records: Iterable[_Record]) -> list[_Record]:
    return list({record.key: record for record in records}.values())


def _last(records: Iterable[_Record], key: CollateralKey) -> _Record | None:
    return {record.key: record for record in records}.get(key)


def _pruned(records: list[_Record], most: int) -> list[_Record]:
    """Drop the oldest beyond `most`, never the newest of a key: Intel's families bound these, a few hundred at most."""
    newest = _newest(records)
    old = [record for record in records if record not in newest]
    room = max(0, most - len(newest))
    gone = old[: max(0, len(old) - room)]
    return [record for record in records if record not in gone]


def _read(path: Path, most: int) -> bytes:
    """Read a file of at most `most` bytes; of a longer one, one byte more, so that it is refused as too long."""
    with path.open("rb") as file:
        return file.read(most + 1)
