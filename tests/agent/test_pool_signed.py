"""What a node key signed: one command of a number, as long as it can land; noted before the signature leaves."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from agent.certificates import CertificateFile
from agent.errors import OperationError
from agent.pool.signed import RECORD_BYTES_MAX, SignedRecord, SignedRecordError, number_of
from contracts.commands import Close, Command, Pause, Remove, SetReputation, Target
from contracts.model import Address, CertificateDomain
from contracts.signing import SigningKey

KEY = SigningKey(bytes(range(32)))
POOL = Address(0, bytes([1]) * 32)
NOW_S, UNTIL_S = 1000, 2000


def certificate(
    command: Command, *, network: int = -217, pool: Address = POOL, until_s: int = UNTIL_S
) -> CertificateFile:
    domain = CertificateDomain(global_id=network, pool=pool, set_id=1)
    return CertificateFile(domain=domain, valid_until_s=until_s, command=command)


def target(seqno: int = 1, joined_s: int = 5) -> Target:
    return Target(participant=Address(0, bytes([9]) * 32), joined_s=joined_s, seqno=seqno)


@pytest.fixture
def record(tmp_path: Path) -> SignedRecord:
    return SignedRecord.of(tmp_path / "node.key")


def sign(record: SignedRecord, file: CertificateFile, *, now_s: int = NOW_S, another: bool = False) -> CertificateFile:
    return record.sign(file, KEY, now_s, another=another)


def test_a_signature_is_noted_beside_the_key(record: SignedRecord) -> None:
    signed = sign(record, certificate(Pause(gov_seqno=1)))
    assert [node_key for node_key, _ in signed.signatures] == [KEY.public]
    assert record.path.name == "node.key.signed"
    (note,) = json.loads(record.path.read_text())
    assert (note["number"], note["command"], note["valid_until_s"]) == ("gov_seqno 1", "pause", UNTIL_S)
    assert KEY.seed.hex() not in record.path.read_text()
    assert [each.name for each in record.path.parent.iterdir()] == [record.path.name], "no draft is left"


def test_another_command_with_its_number_is_refused_while_the_first_can_land(record: SignedRecord) -> None:
    sign(record, certificate(Pause(gov_seqno=1)))
    rival = certificate(Close(gov_seqno=1), until_s=9000)
    with pytest.raises(OperationError, match="signed another command with this number, pause"):
        sign(record, rival, now_s=UNTIL_S)
    assert sign(record, rival, now_s=UNTIL_S + 1).signatures
    assert len(json.loads(record.path.read_text())) == 1, "what expired is forgotten"


def test_who_insists_signs_both_and_neither_is_forgotten(record: SignedRecord) -> None:
    sign(record, certificate(Pause(gov_seqno=1)))
    sign(record, certificate(Close(gov_seqno=1)), another=True)
    for command in (Pause(gov_seqno=1), Close(gov_seqno=1)):
        with pytest.raises(OperationError, match="signed another command"):
            sign(record, certificate(command))


def test_the_same_command_is_signed_again_with_another_end(record: SignedRecord) -> None:
    sign(record, certificate(Pause(gov_seqno=1)))
    assert sign(record, certificate(Pause(gov_seqno=1), until_s=5000)).signatures


@pytest.mark.parametrize(
    "file",
    [
        certificate(Close(gov_seqno=2)),
        certificate(Close(gov_seqno=1), network=-239),
        certificate(Close(gov_seqno=1), pool=Address(0, bytes([2]) * 32)),
        certificate(Remove(target=target())),
    ],
)
def test_other_numbers_pools_and_networks_are_apart(record: SignedRecord, file: CertificateFile) -> None:
    sign(record, certificate(Pause(gov_seqno=1)))
    assert sign(record, file).signatures


def test_a_participant_has_numbers_of_its_own() -> None:
    assert number_of(Remove(target=target())) == number_of(SetReputation(target=target(), reputation=1))
    numbers = {number_of(Remove(target=each)) for each in (target(), target(seqno=2), target(joined_s=6))}
    assert len(numbers) == 3


def test_a_rehearsal_notes_nothing_and_refuses_all_the_same(record: SignedRecord) -> None:
    record.sign(certificate(Pause(gov_seqno=1)), KEY, NOW_S, another=False, keep=False)
    assert not record.path.exists()
    sign(record, certificate(Pause(gov_seqno=1)))
    with pytest.raises(OperationError, match="signed another command"):
        record.sign(certificate(Close(gov_seqno=1)), KEY, NOW_S, another=False, keep=False)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"[" * 9999, b"\xff", b" " * (RECORD_BYTES_MAX + 1)])
def test_a_damaged_record_stops_the_signing(record: SignedRecord, content: bytes) -> None:
    record.path.write_bytes(content)
    with pytest.raises(SignedRecordError, match=r"node\.key\.signed: damaged"):
        sign(record, certificate(Pause(gov_seqno=1)))
    assert record.path.read_bytes() == content


def test_a_record_that_cannot_be_kept_stops_the_signing(tmp_path: Path) -> None:
    with pytest.raises(SignedRecordError, match="cannot be opened"):
        sign(SignedRecord.of(tmp_path / "none" / "node.key"), certificate(Pause(gov_seqno=1)))
    (tmp_path / "node.key.signed").mkdir()
    with pytest.raises(SignedRecordError, match="cannot be read: Is a directory"):
        sign(SignedRecord.of(tmp_path / "node.key"), certificate(Pause(gov_seqno=1)))


@pytest.mark.parametrize(("call", "said"), [("fcntl.flock", "cannot be locked"), ("os.fsync", "cannot be written")])
def test_a_folder_that_fails_stops_the_signing(
    record: SignedRecord, monkeypatch: pytest.MonkeyPatch, call: str, said: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(f"agent.pool.signed.{call}", fail)
    with pytest.raises(SignedRecordError, match=said):
        sign(record, certificate(Pause(gov_seqno=1)))
