"""Certificate files: what may be signed is what the payload says; a file that says something else is refused whole."""

from __future__ import annotations

import base64
import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import key, operator_set
from pytoniq_core import Builder, Cell

from agent import certificates
from agent.certificates import CertificateFile, InvalidCertificateFileError, decode, encode, fewest, merge
from agent.errors import OperationError
from contracts import layout
from contracts.commands import (
    AcceptSet,
    CancelProposal,
    Command,
    FeesTo,
    OwnerMessage,
    Pause,
    ProposeParams,
    ProposeSet,
    SetMetadata,
    SetReputation,
    Slash,
    SlashReason,
    Target,
)
from contracts.model import (
    NANO,
    Address,
    CertificateDomain,
    CertificateKind,
    EpochTerms,
    OperatorSet,
    PoolMetadata,
    PoolParams,
    Signature,
)

POOL, SOMEBODY = Address(0, b"p" * 32), Address(0, b"s" * 32)
DOMAIN = CertificateDomain(global_id=-217, pool=POOL, set_id=1)
TARGET = Target(participant=SOMEBODY, joined_s=5, seqno=2)
COMMANDS: tuple[Command, ...] = (
    Pause(gov_seqno=7),
    FeesTo(gov_seqno=1, recipient=SOMEBODY, amount_nanoton=NANO),
    Slash(target=TARGET, amount_nanoton=0, reason=SlashReason.FORK, evidence_hash=bytes(32)),
    SetReputation(target=TARGET, reputation=3),
    ProposeParams(gov_seqno=1, params=PoolParams(terms=EpochTerms(fee_bps=1, policy_hash=bytes(32)), guardian=POOL)),
    CancelProposal(gov_seqno=1, proposal=CertificateKind.PROPOSE_SET),
    SetMetadata(gov_seqno=1, metadata=PoolMetadata(name="ü")),
    AcceptSet(operator_set=operator_set(3)),
)


def made(command: Command = COMMANDS[0], *signers: int) -> CertificateFile:
    file = CertificateFile(domain=DOMAIN, valid_until_s=2_000_000_000, command=command)
    for i in signers:
        file = file.signed_by(key(i))
    return file


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.kind.name)
def test_a_file_comes_back_as_it_was(command: Command) -> None:
    file = made(command, 0, 2)
    assert decode(encode(file).encode()) == file


def test_a_message_of_the_pool_comes_back(tmp_path: Path) -> None:
    body = Builder().store_uint(7, 32).end_cell()
    file = made(OwnerMessage(gov_seqno=1, dest=SOMEBODY, value_nanoton=NANO, body=body), 0)
    read = decode(encode(file).encode())
    assert isinstance(read.command, OwnerMessage)
    assert (read.command.body.hash, read.signatures) == (body.hash, file.signatures)


def test_a_body_with_endless_paths_is_read_and_written_at_once() -> None:
    """A few cells that refer to each other twice have 2^200 paths: nothing here may walk them all."""
    body = Cell.empty()
    for _ in range(200):
        body = Builder().store_ref(body).store_ref(body).end_cell()
    file = made(OwnerMessage(gov_seqno=1, dest=SOMEBODY, value_nanoton=NANO, body=body), 1)
    assert decode(encode(file).encode()).cell.hash == file.cell.hash


def test_the_proposed_set_travels_beside_its_hash() -> None:
    operators = operator_set(4)
    command = ProposeSet(gov_seqno=1, set_hash=layout.operator_set_cell(operators).hash)
    file = replace(made(command, 0), operator_set=operators)
    assert decode(encode(file).encode()).operator_set == operators
    text = encode(file).replace('"weight": 1', '"weight": 2', 1)
    with pytest.raises(InvalidCertificateFileError, match="not the proposed one"):
        decode(text.encode())
    with pytest.raises(InvalidCertificateFileError, match="not the proposed one"):
        decode(encode(replace(made(), operator_set=operators)).encode())


def changed(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value.update(changes)


def first_signature(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["signatures"][0].update(changes)


def more_signatures(count: int) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["signatures"].extend(value["signatures"][:1] * count)


RESUME = base64.b64encode(
    Builder().store_uint(CertificateKind.RESUME, 8).store_uint(7, 32).end_cell().to_boc()
).decode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(format="gpupool-certificate/2"), "format: expected"),
        (changed(kind="resume"), "somebody tampered"),
        (changed(command={"gov_seqno": 8}), "somebody tampered"),
        (changed(command={"gov_seqno": 7, "note": "harmless"}), "somebody tampered"),
        (changed(payload=RESUME), "somebody tampered"),
        (changed(payload=RESUME, kind="resume"), "does not hold"),
        (changed(payload="AAAA"), "BoC"),
        (changed(payload="?"), "base64"),
        (changed(network=-239), "does not hold"),
        (changed(network=1 << 31), "out of range"),
        (changed(pool=str(SOMEBODY)), "does not hold"),
        (changed(pool="nowhere"), "not a TON address"),
        (changed(set_id=2), "does not hold"),
        (changed(set_id=0), "out of range"),
        (changed(valid_until_s=2_000_000_001), "does not hold"),
        (changed(valid_until_s=1 << 32), "out of range"),
        (changed(surprise=1), "unknown field"),
        (first_signature(signature="00" * 64), "does not hold"),
        (first_signature(signature="00"), "does not hold"),
        (first_signature(signature="zz"), "non-hexadecimal"),
        (first_signature(node_key=key(9).public.hex()), "does not hold"),
        (more_signatures(1), "stands twice"),
        (more_signatures(180), "more than 180"),
    ],
)
def test_a_file_that_somebody_changed_is_refused(change: Callable[[dict[str, Any]], None], said: str) -> None:
    value = json.loads(encode(made(COMMANDS[0], 0)))
    change(value)
    with pytest.raises(InvalidCertificateFileError, match=said):
        decode(json.dumps(value).encode())


@given(st.binary(max_size=200))
def test_garbage_is_no_certificate(content: bytes) -> None:
    with pytest.raises(InvalidCertificateFileError):
        decode(content)


@given(st.data())
def test_any_byte_changed_is_refused_or_means_the_same(data: st.DataObject) -> None:
    content = bytearray(encode(made(COMMANDS[1], 0)).encode())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    try:
        read = decode(bytes(content))
    except InvalidCertificateFileError:
        return
    assert read == made(COMMANDS[1], 0), "upper case in a hash, a space: the same certificate"


def test_a_file_is_bounded() -> None:
    with pytest.raises(InvalidCertificateFileError, match="longer than"):
        decode(b" " * (certificates.FILE_BYTES_MAX + 1))


def test_files_of_one_certificate_merge() -> None:
    merged = merge([made(COMMANDS[0], 0, 1), made(COMMANDS[0], 1, 2), made()])
    assert [node_key for node_key, _ in merged.signatures] == [key(i).public for i in range(3)]
    with pytest.raises(InvalidCertificateFileError, match="different certificates"):
        merge([made(COMMANDS[0]), made(COMMANDS[1])])


def test_a_key_signs_once() -> None:
    assert made(COMMANDS[0], 0, 0) == made(COMMANDS[0], 0)


def test_strangers_weigh_nothing() -> None:
    signatures, weight = made(COMMANDS[0], 0, 7).weigh(operator_set(4))
    assert ([s.index for s in signatures], weight) == ([0], 1)


@pytest.mark.parametrize(
    ("weights", "signers", "chosen"),
    [
        ([1, 1, 1, 1], [0, 1, 2, 3], [0, 1, 2]),
        ([1, 1, 1, 7], [0, 1, 2, 3], [3]),
        ([5, 1, 5, 1], [1, 0, 2], [0, 2]),
        ([1], [0], [0]),
    ],
)
def test_the_fewest_signatures_are_sent(weights: list[int], signers: list[int], chosen: list[int]) -> None:
    operators = operator_set(len(weights), weights)
    signatures = [Signature(index=i, signature=bytes(64)) for i in signers]
    assert [s.index for s in fewest(signatures, operators)] == chosen


def test_two_thirds_are_not_enough() -> None:
    with pytest.raises(OperationError, match="weight 2 of 3 are no quorum"):
        fewest([Signature(index=i, signature=bytes(64)) for i in range(2)], operator_set(3))


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "pause.json"
    certificates.write(path, made())
    with pytest.raises(OperationError, match="exists already"):
        certificates.write(path, made(COMMANDS[0], 0))
    assert certificates.read(path) == made()
    certificates.write(path, made(COMMANDS[0], 0), over=True)
    assert certificates.read(path) == made(COMMANDS[0], 0)
    assert [each.name for each in tmp_path.iterdir()] == ["pause.json"], "no draft is left"
    with pytest.raises(OperationError, match="cannot be written"):
        certificates.write(tmp_path / "none" / "pause.json", made())
    with pytest.raises(InvalidCertificateFileError, match=r"none\.json: cannot be read"):
        certificates.read(tmp_path / "none.json")


def failing(call: Callable[..., Any], at: int) -> Callable[..., Any]:
    """The same call, whose number `at` (0 ..) finds no room."""
    count = iter(range(99))

    def fail(*arguments: Any) -> Any:
        if next(count) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return call(*arguments)

    return fail


@pytest.mark.parametrize(
    ("name", "at", "is_signed"),
    [("fsync", 0, False), ("fsync", 1, False), ("fsync", 3, True), ("link", 1, True), ("fsync", 5, True)],
    ids=["the first", "the second", "signed", "its name", "the folder"],
)
def test_all_files_are_written_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int, is_signed: bool
) -> None:
    unsigned = [made(command) for command in COMMANDS[:2]]
    files = [(tmp_path / f"{i}.json", file) for i, file in enumerate(unsigned)]
    asked: list[set[str]] = []

    def sign() -> list[CertificateFile]:
        asked.append({path.read_text() for path in tmp_path.iterdir()})
        return [file.signed_by(key(0)) for file in unsigned]

    with monkeypatch.context() as patched:
        patched.setattr(os, name, failing(getattr(os, name), at))
        with pytest.raises(OperationError, match=r"json: cannot be written: No space left on device"):
            certificates.write_new(files, sign)
    assert list(tmp_path.iterdir()) == []
    assert asked == [set(map(encode, unsigned))] * is_signed, "on disk before they are signed"
    certificates.write_new(files, sign)
    assert [certificates.read(path) for path, _ in files] == [file.signed_by(key(0)) for file in unsigned]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_signature_that_is_refused_leaves_no_file(tmp_path: Path) -> None:
    def refuse() -> list[CertificateFile]:
        raise OperationError("another was signed")

    with pytest.raises(OperationError, match="another was signed"):
        certificates.write_new([(tmp_path / "pause.json", made())], refuse)
    assert list(tmp_path.iterdir()) == []
    certificates.write(tmp_path / "old.json", made())
    with pytest.raises(OperationError, match=r"old\.json: exists already"):
        certificates.write_new([(tmp_path / "pause.json", made()), (tmp_path / "old.json", made())], refuse)
    with pytest.raises(OperationError, match=r"new\.json: exists already"):
        certificates.write_new([(tmp_path / "new.json", made()), (tmp_path / "new.json", made())], refuse)
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]


def twice() -> OperatorSet:
    """A set in which one key stands twice: the contract takes it, as an operator of both weights."""
    return replace(operator_set(3), operators=(*operator_set(3).operators, *operator_set(1, [5]).operators))


def test_a_set_with_one_key_twice_is_neither_proposed_nor_accepted() -> None:
    with pytest.raises(InvalidCertificateFileError, match="a node key stands twice"):
        decode(encode(made(AcceptSet(operator_set=twice()))).encode())
    command = ProposeSet(gov_seqno=1, set_hash=layout.operator_set_cell(twice()).hash)
    with pytest.raises(InvalidCertificateFileError, match="a node key stands twice"):
        decode(encode(replace(made(command), operator_set=twice())).encode())


def test_a_key_that_stands_twice_signs_for_both() -> None:
    signatures, weight = made(COMMANDS[0], 0).weigh(twice())
    assert ([s.index for s in signatures], weight) == ([0, 3], 6)
