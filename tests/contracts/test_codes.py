"""Numbers: written from one place, the same everywhere, and each refusal is used and explained."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest
from pytoniq_core import Cell

from contracts import codes
from contracts.certificate import CERTIFICATE, NODE_KEY_POSSESSION
from contracts.model import Address
from contracts.opcodes import FOREIGN_OPS, MEANINGS, CertificateKind, Event, Op, Refusal, describe_exit, explain_exit

CODES = (codes.ROOT / "codes.toml").read_text()
SCHEMA = (codes.ROOT / "schema.tlb").read_text()
SOURCES = {path.name: path.read_text() for path in (codes.ROOT / "src").glob("*.tolk")}
NUMBERS = codes.read_numbers(CODES, SCHEMA)


def test_every_file_has_the_numbers() -> None:
    assert codes.main(["--check"]) == 0


def test_check_finds_what_differs_and_writing_mends_it(tmp_path: Path) -> None:
    root = copy_of_sources(tmp_path)
    for name, wrong in (
        ("src/errors.tolk", ("NotOwner = 150", "NotOwner = 151")),
        ("src/kinds.tolk", ("0x10", "0x11")),
        ("src/messages.tolk", ("(0x40daf533) PoolInit", "(0x40daf534) PoolInit")),
        ("src/certificate.tolk", ("(0x02) SlashPayload", "(0x03) SlashPayload")),
        ("schema.tlb", ("event_pool_closed#7ac6e1fa", "event_pool_closed#00000000")),
        ("opcodes.py", ("NOT_OWNER = 150", "NOT_OWNER = 7")),
        ("../docs/contracts.md", ("| 150 | `not_owner` |", "")),
    ):
        path = root / name
        right = path.read_text()
        path.write_text(right.replace(*wrong))
        assert path.read_text() != right, name
        written = codes.written(root)
        assert [p.name for p, text in written.items() if p.read_text() != text] == [path.name]
        path.write_text(written[root.parent / "docs" / path.name if "docs" in name else path])
        assert path.read_text() == right


def copy_of_sources(folder: Path) -> Path:
    root = folder / "contracts"
    (root / "src").mkdir(parents=True)
    (folder / "docs").mkdir()
    for name, text in SOURCES.items():
        (root / "src" / name).write_text(text)
    for name in ("codes.toml", "schema.tlb", "opcodes.py"):
        (root / name).write_text((codes.ROOT / name).read_text())
    document = folder / "docs" / "contracts.md"
    document.write_text(
        "".join(f"<!-- codes:{n} -->\n<!-- /codes:{n} -->\n" for n in ("ops", "events", "kinds", "errors"))
    )
    document.write_text(codes.written(root)[document])
    return root


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (("slash = 0x02", "slash = 0x01"), "two kinds"),
        (("not_pool = [151", "not_pool = [150"), "two errors"),
        (("payout = 0xc59a7cd3", "payout = 0x2565934c"), "two ops"),
        (("payout = ", "payback = "), "not in the schema"),
    ],
)
def test_a_number_stands_once(wrong: tuple[str, str], complaint: str) -> None:
    assert wrong[0] in CODES
    with pytest.raises(ValueError, match=complaint):
        codes.read_numbers(CODES.replace(*wrong), SCHEMA)


def test_ops_and_events_are_those_of_the_sources() -> None:
    found = {}
    for name in ("messages.tolk", "events.tolk"):
        pairs = re.findall(r"^struct \(0x(\w{8})\) (\w+)", SOURCES[name], re.MULTILINE)
        found |= {codes.snake(struct): int(number, 16) for number, struct in pairs}
    assert found == {op.name.lower(): int(op) for op in (*Op, *Event)}


def test_kinds_are_those_of_the_sources() -> None:
    payloads = re.findall(r"^struct \(0x(\w\w)\) (\w+)Payload", SOURCES["certificate.tolk"], re.MULTILINE)
    constants = re.findall(r"^const KIND_(\w+) = 0x(\w\w)$", SOURCES["kinds.tolk"], re.MULTILINE)
    kinds = {kind.name.lower(): int(kind) for kind in CertificateKind}
    assert {codes.snake(name): int(number, 16) for number, name in payloads} == kinds
    assert {name.lower(): int(number, 16) for name, number in constants} == kinds


def test_tags_of_what_is_signed() -> None:
    address = Address(0, bytes(32))
    fields = {"global_id": 0, "pool": address, "owner": address, "set_id": 0, "valid_until": 0, "kind": 1}
    for codec, name in ((CERTIFICATE, "certificate"), (NODE_KEY_POSSESSION, "node_key_possession")):
        cell = codec.cell({**fields, "payload": Cell.empty()})
        assert int.from_bytes(cell.bits[:32].tobytes(), "big") == NUMBERS.tags[name]


@pytest.mark.parametrize("op", [op for op in (*Op, *Event) if op not in FOREIGN_OPS])
def test_an_op_is_the_crc32_of_its_name(op: Op | Event) -> None:
    assert zlib.crc32(op.name.lower().encode()) & 0x7FFFFFFF == op


def test_refusals_are_those_of_the_contracts() -> None:
    tolk = re.findall(r"^    (\w+) = (\w+)$", SOURCES["errors.tolk"], re.MULTILINE)
    assert {codes.snake(name): int(number, 0) for name, number in tolk} == {r.name.lower(): int(r) for r in Refusal}


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_is_used_and_explained(refusal: Refusal) -> None:
    assert f"Err.{codes.camel(refusal.name.lower())}" in "".join(SOURCES.values())
    assert MEANINGS[refusal]


@pytest.mark.parametrize(
    ("code", "name", "sentence"),
    [
        (0, "ok", "done"),
        (1, "ok", "done"),
        (306, "wrong_prev", "does not build on the settlement that landed"),
        (65535, "unknown_op", "no such operation"),
        (9, "cell_underflow", "malformed"),
        (777, "exit_777", "no exit code of these contracts"),
    ],
)
def test_exit_codes_have_names_and_sentences(code: int, name: str, sentence: str) -> None:
    assert describe_exit(code) == name
    assert sentence in explain_exit(code)
