"""What a node key signed so far: an operator does not sign two commands of which only one can land.

Two commands with one number (the pool's, a participant's, a set's) are alternatives: the contract takes whichever
is brought first, and who signed both leaves that choice to strangers. So:

1. A signature is noted beside the key, durable before it leaves (`node.key.signed`).
2. Another command with the same number is refused as long as the first can still land, unless the operator insists
   because the first was given up. The same command with another end of its validity is no other command.
3. What expired is forgotten. A record that cannot be read stops the signing.

A settlement is never signed here, and may be signed more than once (PROTOCOL, "Epoch close").
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent.certificates import CertificateFile
from agent.errors import AgentError, OperationError
from agent.pool.values import utc
from contracts import layout
from contracts.commands import AcceptSet, CancelSlash, Command, Remove, SetReputation, Slash, Suspend
from contracts.model import SettlePayload
from contracts.signing import SigningKey

RECORD_BYTES_MAX = 1 << 20


class SignedRecordError(AgentError):
    """What was signed so far cannot be read or kept: nothing is signed until its owner mended that."""


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    network: int
    pool: str
    number: str
    command: str
    payload: str
    valid_until_s: int


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """The record of one node key, in the file `path`."""

    path: Path

    @classmethod
    def of(cls, node_key_file: Path) -> SignedRecord:
        """The record beside this key."""
        return cls(node_key_file.with_name(f"{node_key_file.name}.signed"))

    def sign(
        self, file: CertificateFile, key: SigningKey, now_s: int, *, another: bool, keep: bool = True
    ) -> CertificateFile:
        """The certificate with this key's signature, which is noted first; `keep=False` only rehearses.

        Raises:
            OperationError: another command with its number was signed and can still land, and not `another`.
            SignedRecordError: the record cannot be read or written; nothing is signed.
        """
        note = _note(file)
        with self._alone():
            notes = [each for each in self._read() if each.valid_until_s >= now_s]
            others = [each for each in notes if _is_rival(each, note)]
            if others and not another:
                raise OperationError(
                    f"this node key signed another command with this number, {others[0].command} "
                    f"{others[0].payload[:16]}, which can land until {utc(others[0].valid_until_s)}; the first to land "
                    "counts: add --sign-another only if that one was given up"
                )
            if keep and note not in notes:
                self._write([*notes, note])
        return file.signed_by(key)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes out for the length of the block, by a lock on the folder."""
        with self._told("opened"):
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with self._told("locked"):
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
            with self._told("written"):
                os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Say that the folder cannot be so."""
        try:
            yield
        except OSError as error:
            raise SignedRecordError(f"{self.path.parent}: cannot be {what}: {error.strerror}") from error

    def _read(self) -> list[_Note]:
        try:
            with self.path.open("rb") as file:
                content = file.read(RECORD_BYTES_MAX + 1)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SignedRecordError(f"{self.path}: cannot be read: {error.strerror}") from error
        try:
            if len(content) > RECORD_BYTES_MAX:
                raise msgspec.ValidationError(f"longer than {RECORD_BYTES_MAX} bytes")
            return msgspec.json.decode(content, type=list[_Note])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SignedRecordError(
                f"{self.path}: damaged ({error}): it says which commands this node key signed; restore it, or move it "
                "away if none of them is under way"
            ) from error

    def _write(self, notes: list[_Note]) -> None:
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.new")
        try:
            with aside.open("xb") as draft:
                draft.write(msgspec.json.format(msgspec.json.encode(notes)) + b"\n")
                draft.flush()
                os.fsync(draft.fileno())
            aside.rename(self.path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise SignedRecordError(f"{self.path}: cannot be written: {error.strerror}; nothing was signed") from error


def number_of(made: Command) -> str:
    """What stops a command's replay, and so what only one command can have."""
    match made:
        case SettlePayload():
            return f"epoch {made.epoch}"
        case AcceptSet():
            return f"set {made.operator_set.set_id}"
        case Slash() | CancelSlash() | SetReputation() | Remove() | Suspend():
            target = made.target
            return f"participant {target.participant} joined {target.joined_s} seqno {target.seqno}"
        case _:
            return f"gov_seqno {made.gov_seqno}"


def _note(file: CertificateFile) -> _Note:
    return _Note(
        network=file.domain.global_id,
        pool=str(file.domain.pool),
        number=number_of(file.command),
        command=file.command.kind.name.lower(),
        payload=layout.command_cell(file.command).hash.hex(),
        valid_until_s=file.valid_until_s,
    )


def _is_rival(one: _Note, other: _Note) -> bool:
    """Whether only one of the two can land."""
    is_same_number = (one.network, one.pool, one.number) == (other.network, other.pool, other.number)
    return is_same_number and one.payload != other.payload
