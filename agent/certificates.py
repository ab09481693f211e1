"""Certificate files: a command on its way through the operators who sign it, until one of them submits it.

A file is JSON. What is signed is the certificate that its envelope and payload make, and nothing else: the readable
`command` is for people who open the file, and must say what the payload says. Rules:
1. A file is at most `FILE_BYTES_MAX` bytes, has exactly the known keys, and a payload that is read strictly.
2. `command` equals what the payload says; the set beside a proposal of it has the proposed hash. Otherwise the
   whole file is refused: somebody tampered with it.
3. Each signature holds under the node key beside it, and each key stands once. Whether that key is an
   operator's, and with which weight, only the chain says (`weigh`).
4. Files merge when they are of the very same certificate.

Untrusted input: the file; it may come from anybody. No I/O beyond reading and writing it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from pytoniq_core import Cell

from agent.errors import AgentError, OperationError
from agent.files import sync_folder
from agent.pool.values import plain
from contracts import certificate, layout, signing
from contracts.commands import Command, ProposeSet
from contracts.devchain.boc import to_boc
from contracts.errors import InvalidCellError, InvalidValueError
from contracts.model import OPERATORS_MAX, Address, CertificateDomain, Operator, OperatorSet, Signature

FORMAT = "gpupool-certificate/1"
FILE_BYTES_MAX = 1 << 20


class InvalidCertificateFileError(AgentError):
    """The file is no certificate, or says something else than what its signatures are over: ask its sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFile:
    """A certificate and the signatures that it has so far, by node key (32 bytes).

    `operator_set` is the set itself where the command proposes one by its hash.
    """

    domain: CertificateDomain
    valid_until_s: int
    command: Command
    signatures: tuple[tuple[bytes, bytes], ...] = ()
    operator_set: OperatorSet | None = None

    @property
    def cell(self) -> Cell:
        """The certificate; its `.hash` is what an operator signs."""
        return certificate.command_certificate(self.domain, self.command, valid_until_s=self.valid_until_s)

    def signed_by(self, key: signing.SigningKey) -> CertificateFile:
        """The same with this key's signature added; unchanged if it signed already."""
        if any(node_key == key.public for node_key, _ in self.signatures):
            return self
        return replace(self, signatures=(*self.signatures, (key.public, key.sign(self.cell.hash))))

    def weigh(self, operators: OperatorSet) -> tuple[list[Signature], int]:
        """The signatures of this set's operators, and their weight. Others' are left out."""
        signature_of = dict(self.signatures)
        found = [
            Signature(index=index, signature=signature_of[each.node_key])
            for index, each in enumerate(operators.operators)
            if each.node_key in signature_of
        ]
        return found, sum(operators.operators[each.index].weight for each in found)


def fewest(signatures: Iterable[Signature], operators: OperatorSet) -> list[Signature]:
    """As few of these signatures as make a quorum: each costs gas.

    Raises:
        OperationError: all of them together are none.
    """
    chosen: list[Signature] = []
    weight = 0
    for signature in sorted(signatures, key=lambda s: (-operators.operators[s.index].weight, s.index)):
        chosen.append(signature)
        weight += operators.operators[signature.index].weight
        if operators.is_quorum(weight):
            return chosen
    raise OperationError(
        f"signatures of weight {weight} of {operators.total_weight} are no quorum: more than two thirds are needed"
    )


def merge(files: Iterable[CertificateFile]) -> CertificateFile:
    """One file with the signatures of all (at least one).

    Raises:
        InvalidCertificateFileError: they are not of the same certificate.
    """
    merged, *others = files
    for other in others:
        if other.cell.hash != merged.cell.hash:
            raise InvalidCertificateFileError(
                "the files are of different certificates; `certificate show` tells them apart"
            )
        have = {node_key for node_key, _ in merged.signatures}
        added = tuple(each for each in other.signatures if each[0] not in have)
        merged = replace(
            merged,
            signatures=merged.signatures + added,
            operator_set=merged.operator_set or other.operator_set,
        )
    return merged


# The file.


class _SignatureEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    node_key: str
    signature: str


class _OperatorEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    node_key: str
    weight: int


class _SetEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    set_id: int
    operators: list[_OperatorEntry]


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    network: int
    pool: str
    set_id: int
    valid_until_s: int
    kind: str
    command: dict[str, Any]
    payload: str
    signatures: list[_SignatureEntry]
    operator_set: _SetEntry | None = None


def encode(file: CertificateFile) -> str:
    """The file's text."""
    value: dict[str, Any] = {
        "format": FORMAT,
        "network": file.domain.global_id,
        "pool": str(file.domain.pool),
        "set_id": file.domain.set_id,
        "valid_until_s": file.valid_until_s,
        "kind": file.command.kind.name.lower(),
        "command": plain(file.command),
        "payload": base64.b64encode(to_boc(layout.command_cell(file.command))).decode(),
        "signatures": [{"node_key": key.hex(), "signature": signature.hex()} for key, signature in file.signatures],
    }
    if file.operator_set is not None:
        value["operator_set"] = plain(file.operator_set)
    return json.dumps(value, indent=2) + "\n"


def decode(content: bytes) -> CertificateFile:
    """Read a file's content.

    Raises:
        InvalidCertificateFileError: it breaks one of the rules 1 to 3.
    """
    if len(content) > FILE_BYTES_MAX:
        raise InvalidCertificateFileError(f"longer than {FILE_BYTES_MAX} bytes")
    try:
        form = msgspec.json.decode(content, type=_Form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidCertificateFileError(f"no certificate file: {error}") from error
    if form.format != FORMAT:
        raise InvalidCertificateFileError(f"format: expected {FORMAT!r}, got {form.format!r:.40}")
    try:
        return _decode(form)
    except (InvalidCellError, InvalidValueError, binascii.Error, ValueError) as error:
        raise InvalidCertificateFileError(f"{error}") from error


def _decode(form: _Form) -> CertificateFile:
    command = layout.read_command(layout.parse_boc(base64.b64decode(form.payload, validate=True)))
    if form.kind != command.kind.name.lower() or form.command != plain(command):
        raise InvalidCertificateFileError("kind or command: not what the payload says; somebody tampered with the file")
    if not 1 <= form.set_id < 1 << 32 or not 0 <= form.valid_until_s < 1 << 32 or abs(form.network) >> 31:
        raise InvalidCertificateFileError("set_id, valid_until_s or network: out of range")
    file = CertificateFile(
        domain=CertificateDomain(global_id=form.network, pool=Address.parse(form.pool), set_id=form.set_id),
        valid_until_s=form.valid_until_s,
        command=command,
        operator_set=_read_set(form.operator_set, command),
    )
    return replace(file, signatures=_read_signatures(form.signatures, file.cell.hash))


def _read_set(entry: _SetEntry | None, command: Command) -> OperatorSet | None:
    if entry is None:
        return None
    operators = OperatorSet(
        set_id=entry.set_id,
        operators=tuple(
            Operator(node_key=bytes.fromhex(each.node_key), weight=each.weight) for each in entry.operators
        ),
    )
    operators.require_distinct()
    if not isinstance(command, ProposeSet) or layout.operator_set_cell(operators).hash != command.set_hash:
        raise InvalidCertificateFileError("operator_set: not the proposed one; somebody tampered with the file")
    return operators


def _read_signatures(entries: list[_SignatureEntry], certificate_hash: bytes) -> tuple[tuple[bytes, bytes], ...]:
    if len(entries) > OPERATORS_MAX:
        raise InvalidCertificateFileError(f"signatures: more than {OPERATORS_MAX}")
    signatures: dict[bytes, bytes] = {}
    for entry in entries:
        node_key, signature = bytes.fromhex(entry.node_key), bytes.fromhex(entry.signature)
        try:
            signing.verify(node_key, certificate_hash, signature)
        except signing.InvalidSignatureError as error:
            raise InvalidCertificateFileError(f"signatures: that of {entry.node_key:.64} does not hold") from error
        if node_key in signatures:
            raise InvalidCertificateFileError(f"signatures: {entry.node_key:.64} stands twice")
        signatures[node_key] = signature
    return tuple(signatures.items())


def read(path: Path) -> CertificateFile:
    """Read a certificate file.

    Raises:
        InvalidCertificateFileError: it cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            return decode(file.read(FILE_BYTES_MAX + 1))
    except OSError as error:
        raise InvalidCertificateFileError(f"{path}: cannot be read: {error.strerror}") from error
    except InvalidCertificateFileError as error:
        raise InvalidCertificateFileError(f"{path}: {error}") from error


def write(path: Path, file: CertificateFile, *, over: bool = False) -> None:
    """Write a certificate file, whole or not at all.

    Raises:
        OperationError: it exists already and shall not be overwritten (`over`), or cannot be written.
    """
    if not over:
        write_new([(path, file)])
        return
    require_writable(path, over=True)
    aside = _aside(path)
    with _explaining(path):
        _put(aside, file)
        try:
            aside.rename(path)
        finally:
            aside.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_new(
    files: Sequence[tuple[Path, CertificateFile]], sign: Callable[[], Sequence[CertificateFile]] | None = None
) -> None:
    """Write certificate files that do not stand there yet: all of them, or none.

    `sign` gives the same files with a signature that is noted somewhere. It is called once all are on disk without it
    and only lack their names: what would stop them is found before anything is noted, and nothing is signed on disk
    that is not noted. What it raises leaves no file.

    Raises:
        OperationError: one exists already, or cannot be written.
    """
    for path, _ in files:
        require_writable(path)
    asides: list[Path] = []
    named: list[Path] = []
    try:
        for path, file in files:
            with _explaining(path):
                _put(_aside(path), file)
                asides.append(_aside(path))
        for (path, _), signed in zip(files, sign(), strict=True) if sign is not None else ():
            with _explaining(path):
                _aside(path).unlink()
                _put(_aside(path), signed)
        for path, _ in files:
            with _explaining(path):
                os.link(_aside(path), path)
                named.append(path)
                sync_folder(path.parent)
    except BaseException:
        for path in named:
            path.unlink(missing_ok=True)
        raise
    finally:
        for aside in asides:
            aside.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    """Where a file stands until it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.new")


def _put(aside: Path, file: CertificateFile) -> None:
    """Write what is to get its name; durable on return, and gone if it fails."""
    with aside.open("x") as draft:
        try:
            draft.write(encode(file))
            draft.flush()
            os.fsync(draft.fileno())
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise OperationError(f"{path}: exists already; name another --out") from None
    except OSError as error:
        raise OperationError(f"{path}: cannot be written: {error.strerror}") from error


def require_writable(path: Path, *, over: bool = False) -> None:
    """Find out what would stop `write`, before a signature is noted that no file would hold.

    Raises:
        OperationError: as `write`.
    """
    if not path.name:
        raise OperationError(f"{path}: a folder; name a file")
    if not over and os.path.lexists(path):
        raise OperationError(f"{path}: exists already; name another --out")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OperationError(f"{path}: cannot be written: no folder that this user can write to")
