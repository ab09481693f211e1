"""Random changes to a real quote and its collateral that nobody signs again: what anybody can do to them.

Every change draws from the dice that it is given and from nothing else. `resigned_quotes` makes the changes that
reach deeper, because whoever made them holds the keys.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from attestation.collateral import Collateral
from attestation.quote import parse_quote
from attestation.roots import INTEL_ROOT

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "tdx"
"""Real quotes and collateral, which stand beside the repository where they are to be had."""

DOCUMENTS = ("tcb_info", "qe_identity")
CHAINS = ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain")
LISTS = ("root_ca_crl", "pck_crl")
SIGNATURES = ("tcb_info_signature", "qe_identity_signature")
PARTS = (*CHAINS, *LISTS, *DOCUMENTS, *SIGNATURES)
GROUPS = (
    ("tcb_info", "tcb_info_signature"),
    ("qe_identity", "qe_identity_signature"),
    ("pck_crl", "pck_crl_issuer_chain"),
    ("tcb_info", "tcb_info_signature", "tcb_info_issuer_chain"),
)
"""Parts that belong together; swapped as a whole, they stay authentic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What a verifier is asked. `parts` are the fields of `Collateral`; `how` says what was changed."""

    how: str
    raw: bytes
    parts: Mapping[str, bytes]
    now: int
    root: bytes = INTEL_ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """A quote cut up; `join` computes the lengths anew."""

    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: bytes
    qe_signature: bytes
    auth_data: bytes
    chain: bytes

    @classmethod
    def of(cls, raw: bytes) -> Pieces:
        quote = parse_quote(raw)
        return cls(
            signed=quote.signed,
            signature=quote.signature,
            attestation_key=quote.attestation_key,
            qe_report=quote.qe_report.raw,
            qe_signature=quote.qe_report_signature,
            auth_data=quote.qe_auth_data,
            chain=quote.pck_chain_pem,
        )

    def join(self, slack: Sequence[bytes] = (b"", b"", b"")) -> bytes:
        """The quote; `slack` stands after the chain, after the certification data and after everything."""
        chain = _u16(5) + _u32(len(self.chain)) + self.chain + slack[0]
        qe = self.qe_report + self.qe_signature + _u16(len(self.auth_data)) + self.auth_data + chain
        auth = self.signature + self.attestation_key + _u16(6) + _u32(len(qe)) + qe + slack[1]
        return self.signed + _u32(len(auth)) + auth + slack[2]

    def regions(self) -> dict[str, tuple[int, int]]:
        """Name -> (first, behind the last) of every region of `join()`."""
        body = 48 if self.signed[:2] == b"\x04\x00" else 54
        sizes = {
            "header": body,
            "body": len(self.signed) - body,
            "length of authentication data": 4,
            "signature": 64,
            "attestation key": 64,
            "certification type and length": 6,
            "QE report": 384,
            "QE report signature": 64,
            "QE authentication data": 2 + len(self.auth_data),
            "chain type and length": 6,
            "PCK chain": len(self.chain),
        }
        found, at = {}, 0
        for name, size in sizes.items():
            found[name] = (at, at + size)
            at += size
        return found


Change = Callable[[Random, Input, Sequence[Input]], Input]


@lru_cache(maxsize=1)
def real_cases() -> list[Input]:
    """Every quote of the manifest with each of its collaterals; none where the vectors are not to be had."""
    if not FOLDER.is_dir():
        return []
    cases = []
    for quote in json.loads((FOLDER / "manifest.json").read_text())["quotes"]:
        raw = (FOLDER / quote["file"]).read_bytes()
        for case in quote["cases"]:
            collateral = Collateral.from_json((FOLDER / "collateral" / case["collateral"]).read_bytes())
            parts = {name: getattr(collateral, name) for name in PARTS}
            cases.append(Input(how=case["status"] or case["error"], raw=raw, parts=parts, now=case["now"]))
    return cases


def mutant(dice: Random, cases: Sequence[Input]) -> Input:
    """One random change to one of `cases`."""
    change: Change = dice.choices(*zip(*CHANGES, strict=True))[0]
    return change(dice, dice.choice(cases), cases)


def edited(dice: Random, data: bytes) -> bytes:
    """`data` with a bit, a byte or a run of bytes changed, taken out or put in."""
    at, size = dice.randrange(len(data) + 1), dice.choice((1, 1, 2, 4, 16))
    kind = dice.randrange(6)
    if kind <= 1 and at < len(data):
        return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + dice.choice((b"\x00", b"\xff")) * len(data[at : at + size]) + data[at + size :]
    if kind == 3:
        return data[:at] + data[at + size :]
    if kind == 4:
        return data[:at] + dice.randbytes(size) + data[at:]
    return data[:at] + dice.randbytes(len(data[at : at + size])) + data[at + size :]


def changed_tree(dice: Random, tree: Any) -> Any:
    """A JSON document with one value, anywhere in it, changed, taken out or repeated (in place)."""
    holder, key = dice.choice(list(_places(tree)))
    value = holder[key]
    kind = dice.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(dice.randrange(len(holder) + 1), json.loads(json.dumps(value)))
    elif kind == 2 and isinstance(holder, list):
        dice.shuffle(holder)
    elif isinstance(value, bool | int):
        holder[key] = dice.choice((value + 1, value - 1, 0, 255, 256, 65_535, 65_536, -1, 1 << 32, str(value)))
    elif isinstance(value, str):
        holder[key] = dice.choice((*_SPELLINGS, _changed_text))(dice, value)
    else:
        holder[key] = dice.choice((None, [], {}, 0, "", [value], value))
    return tree


def rearranged(dice: Random, pem: bytes) -> bytes:
    """A chain with its certificates in another order, number or spelling."""
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\r?\n?", pem, re.DOTALL)
    kind = dice.randrange(8)
    if kind == 0:
        dice.shuffle(blocks)
    elif kind == 1 and blocks:
        blocks.pop(dice.randrange(len(blocks)))
    elif kind == 2 and blocks:
        blocks.insert(dice.randrange(len(blocks) + 1), dice.choice(blocks))
    elif kind == 3:
        blocks.insert(dice.randrange(len(blocks) + 1), dice.choice((b"\n", b"text\n", b"\0", b" ", b"\r\n")))
    elif kind == 4:
        return pem.replace(b"\n", b"\r\n")
    elif kind == 5:
        return pem.rstrip(b"\0") + dice.choice((b"", b"\0", b"\0\0", b"\n", b"-----BEGIN X-----\n"))
    elif kind == 6 and blocks:
        at = dice.randrange(len(blocks))
        blocks[at] = _pem(edited(dice, base64.b64decode(b"".join(blocks[at].split(b"-----")[2].split()))))
    else:
        return edited(dice, pem)
    return b"".join(blocks)


# --- the quote ---


def _flip(dice: Random, case: Input, _cases: Sequence[Input]) -> Input:
    regions = Pieces.of(case.raw).regions()
    name = dice.choice(list(regions))
    start, end = regions[name]
    region = bytearray(case.raw[start:end])
    for _ in range(dice.choice((1, 1, 1, 2, 8))):
        region[dice.randrange(len(region))] ^= dice.choice((1 << dice.randrange(8), dice.randrange(1, 256)))
    return replace(case, how=f"quote: bytes of the {name}", raw=case.raw[:start] + bytes(region) + case.raw[end:])


def _resize(dice: Random, case: Input, _cases: Sequence[Input]) -> Input:
    raw, at = case.raw, dice.randrange(len(case.raw))
    kind = dice.randrange(4)
    if kind == 0:
        return replace(case, how="quote: cut short", raw=raw[:at])
    if kind == 1:
        return replace(case, how="quote: bytes behind it", raw=raw + dice.randbytes(dice.choice((1, 4, 100, 16_384))))
    if kind == 2:
        return replace(case, how="quote: cut or filled anywhere", raw=edited(dice, raw))
    slack = [b"", b"", b""]
    slack[dice.randrange(2)] = bytes(dice.choice((1, 2, 64)))
    return replace(case, how="quote: slack that the lengths cover", raw=Pieces.of(raw).join(slack))


def _length(dice: Random, case: Input, _cases: Sequence[Input]) -> Input:
    regions = Pieces.of(case.raw).regions()
    name = dice.choice([name for name in regions if "length" in name] + ["QE authentication data"])
    start = regions[name][0] + (2 if "type" in name and dice.random() < 0.7 else 0)
    size = 4 if "length" in name else 2
    value = int.from_bytes(case.raw[start : start + size], "little")
    other = dice.choice((0, 1, value - 1, value + 1, value - 4, value + 4, (1 << 8 * size) - 1, dice.randrange(65_536)))
    field = (max(other, 0) % (1 << 8 * size)).to_bytes(size, "little")
    return replace(case, how=f"quote: another {name}", raw=case.raw[:start] + field + case.raw[start + size :])


def _swap(dice: Random, case: Input, cases: Sequence[Input]) -> Input:
    ours, theirs = Pieces.of(case.raw), Pieces.of(dice.choice(cases).raw)
    names = dice.sample(list(Pieces.__dataclass_fields__), dice.choice((1, 1, 2, 3)))
    swapped = replace(ours, **{name: getattr(theirs, name) for name in names})
    return replace(case, how="quote: pieces of another one", raw=swapped.join())


def _reversion(dice: Random, case: Input, _cases: Sequence[Input]) -> Input:
    pieces = Pieces.of(case.raw)
    return replace(
        case, how="quote: the other version", raw=replace(pieces, signed=reversioned(dice, pieces.signed)).join()
    )


def reversioned(dice: Random, signed: bytes) -> bytes:
    """Header and body of a quote in the other version, or with another body type."""
    body = signed[48:] if signed[0] == 4 else signed[54:]
    kind = dice.choice((2, 2, 3, 3, 4, 0))
    if kind == 0:
        return b"\x04\x00" + signed[2:48] + body[:584]
    size = {2: 584, 3: 648, 4: 885}[kind]
    later = dice.choice((bytes(301), body[:16] + bytes(285)))
    return b"\x05\x00" + signed[2:48] + _u16(kind) + _u32(size) + (body[:584] + later)[:size]


def _chain(dice: Random, case: Input, _cases: Sequence[Input]) -> Input:
    pieces = Pieces.of(case.raw)
    raw = replace(pieces, chain=rearranged(dice, pieces.chain)).join()
    return replace(case, how="quote: its chain rearranged", raw=raw)


# --- the collateral and the time ---


def _other_collateral(dice: Random, case: Input, cases: Sequence[Input]) -> Input:
    other = dice.choice(cases)
    if dice.random() < 0.5:
        return replace(case, how="collateral: another whole one", parts=other.parts)
    names = dice.choice((*GROUPS, *((name,) for name in PARTS)))
    parts = {**case.parts, **{name: other.parts[name] for name in names}}
    return replace(case, how="collateral: parts of another one", parts=parts)


def _edit_part(dice: Random, case: Input, _cases: Sequence[Input]) -> Input:
    name = dice.choice(PARTS)
    value = rearranged(dice, case.parts[name]) if name in CHAINS else edited(dice, case.parts[name])
    return replace(case, how=f"collateral: {name} edited", parts={**case.parts, name: value})


def _edit_document(dice: Random, case: Input, _cases: Sequence[Input]) -> Input:
    name = dice.choice(DOCUMENTS)
    tree = changed_tree(dice, json.loads(case.parts[name]))
    return replace(case, how=f"collateral: {name} rewritten", parts={**case.parts, name: json.dumps(tree).encode()})


def _malleate(dice: Random, case: Input, _cases: Sequence[Input]) -> Input:
    """ECDSA takes (r, n - s) as well: whoever forbids it is stricter than the standard, whoever crashes is wrong."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    name = dice.choice((*SIGNATURES, "signature", "qe_signature"))

    def turned(signature: bytes) -> bytes:
        s = int.from_bytes(signature[32:], "big")
        return signature[:32] + dice.choice((order - s, 0, order, s)).to_bytes(32, "big")

    if name in SIGNATURES:
        parts = {**case.parts, name: turned(case.parts[name])}
        return replace(case, how="signature: another s", parts=parts)
    pieces = Pieces.of(case.raw)
    raw = replace(pieces, **{name: turned(getattr(pieces, name))}).join()
    return replace(case, how="signature: another s", raw=raw)


def _move_time(dice: Random, case: Input, cases: Sequence[Input]) -> Input:
    day = 86_400
    moved = case.now + dice.choice((-1, 1)) * dice.choice((1, 60, day, 7 * day, 30 * day, 365 * day, 3650 * day))
    now = dice.choice((moved, moved, dice.choice(cases).now, 0, 2**31, 2**40))
    return replace(case, how="time: another moment", now=max(now, 0))


def _nothing(_dice: Random, case: Input, _cases: Sequence[Input]) -> Input:
    return replace(case, how="nothing")


CHANGES: list[tuple[Change, int]] = [
    (_flip, 30),
    (_resize, 8),
    (_length, 6),
    (_swap, 12),
    (_reversion, 4),
    (_chain, 8),
    (_other_collateral, 12),
    (_edit_part, 12),
    (_edit_document, 6),
    (_malleate, 4),
    (_move_time, 8),
    (_nothing, 1),
]


def _changed_text(dice: Random, text: str) -> str:
    return edited(dice, text.encode()).decode(errors="replace")


_STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)
_DATES = ("2020-01-01T00:00:00Z", "2024-02-30T00:00:00Z", "2049-01-01T00:00:00Z", "2024-01-01", "")
_SPELLINGS: tuple[Callable[[Random, str], str], ...] = (
    lambda dice, _: dice.choice(_STATUSES),
    lambda dice, _: dice.choice(_STATUSES),
    lambda dice, _: dice.choice(_DATES),
    lambda _, text: text.swapcase(),
    lambda _, text: text + " ",
    lambda _, text: "0" * len(text),
)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found.append((tree, key))
        found.extend(_places(value))
    return found


def _pem(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = b"\n".join(text[i : i + 64] for i in range(0, len(text), 64))
    return b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
