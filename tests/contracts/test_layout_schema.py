"""schema.tlb, the Tolk structs and the Python codecs name the same fields, of the same types, in the same order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from contracts import codes
from contracts.certificate import CERTIFICATE, NODE_KEY_POSSESSION
from contracts.layout import storage, values
from contracts.layout.bodies import EVENTS, MESSAGES
from contracts.layout.codec import Codec, Field, Part
from contracts.layout.payloads import PAYLOADS, TARGET

Fields = tuple[tuple[str, str], ...]

SCHEMA = {c.name: c for c in codes.constructors((codes.ROOT / "schema.tlb").read_text())}
FILES = ("types", "certificate", "messages", "events", "storage")
ONLY_IN_SCHEMA = {"sig_link", "text", "totals_proof", "account_link"}
"""Cells that the contracts read bit by bit."""


def tolk_structs() -> Iterator[tuple[str, str | None, Fields]]:
    for file in FILES:
        text = re.sub(r"//[^\n]*", "", (codes.ROOT / "src" / f"{file}.tolk").read_text())
        for tag, name, body in re.findall(r"struct (?:\(0x(\w+)\) )?(\w+) \{(.*?)\}", text, re.DOTALL):
            fields = re.findall(r"(\w+):\s*(\S.*?)\s*$", body, re.MULTILINE)
            yield codes.snake(name), tag or None, tuple((codes.snake(n), tlb_type(t)) for n, t in fields)


def tlb_type(tolk: str) -> str:
    """The schema's type of a Tolk type; an untyped cell is `^`."""
    plain = {"bool": "Bool", "coins": "Coins", "address": "MsgAddressInt", "address?": "MsgAddress", "cell": "^"}
    if tolk in plain:
        return plain[tolk]
    if match := re.fullmatch(r"Cell<(\w+)>(\??)", tolk):
        return f"(Maybe ^{match[1]})" if match[2] else f"^{match[1]}"
    if match := re.fullmatch(r"map<uint(\d+), (.+)>", tolk):
        return f"(HashmapE {match[1]} {tlb_type(match[2])})"
    return {"uint256": "bits256"}.get(tolk, tolk)


TOLK = {name: (tag, fields) for name, tag, fields in tolk_structs()}


def test_schema_and_sources_have_the_same_structs() -> None:
    assert TOLK.keys() == SCHEMA.keys() - ONLY_IN_SCHEMA


@pytest.mark.parametrize("name", TOLK)
def test_a_struct_is_that_of_the_schema(name: str) -> None:
    tag, fields = TOLK[name]
    schema = SCHEMA[name]
    assert tag == schema.tag
    typed = tuple((n, "^" if t == "^" else wanted) for (n, t), (_, wanted) in zip(fields, schema.fields, strict=True))
    assert [n for n, _ in fields] == [n for n, _ in schema.fields]
    for (_, found), (field, wanted) in zip(fields, schema.fields, strict=True):
        assert wanted.startswith("^") if found == "^" else found == wanted, (name, field)
    assert len(typed) == len(fields)


def python_structs() -> Iterator[tuple[str, Fields]]:
    """Every codec that has fields, those inside others too, by the schema's name."""
    pending: list[tuple[str, tuple[Field | Part, ...]]] = []
    tables: list[Codec[Any]] = [*MESSAGES.values(), *EVENTS.values(), *PAYLOADS.values(), CERTIFICATE]
    tables += [NODE_KEY_POSSESSION, TARGET, storage.POOL, storage.SEED, storage.REWARDS, storage.REGISTRY]
    tables += [storage.REGISTRY_CONFIG, storage.PARTICIPANT, storage.LIFETIME, storage.PENDING, storage.OPEN_EPOCH]
    tables += [storage.LANDED, values.PARAMS, values.TERMS, values.PINNED_TERMS, values.STAKE_RULES, values.METADATA]
    tables += [values.STORED_METADATA, values.OPERATOR_SET, values.OPERATOR_KEY, values.LEAF]
    pending += [(codec.tlb, codec.fields) for codec in tables]
    while pending:
        name, fields = pending.pop()
        pending += [(field.tlb, field.fields) for field in fields if isinstance(field, Part)]
        named = tuple((f.name, f"^{f.tlb}" if isinstance(f, Part) else f.codec.tlb) for f in fields)
        yield name if name.islower() else codes.snake(name), named


PYTHON = list(python_structs())


def test_every_struct_of_the_schema_has_a_codec() -> None:
    assert {name for name, _ in PYTHON} == SCHEMA.keys() - ONLY_IN_SCHEMA


@pytest.mark.parametrize(("name", "fields"), PYTHON, ids=[name for name, _ in PYTHON])
def test_a_codec_is_that_of_the_schema(name: str, fields: Fields) -> None:
    assert fields == tuple((n, "bits256" if t == "uint256" else t) for n, t in SCHEMA[name].fields)
