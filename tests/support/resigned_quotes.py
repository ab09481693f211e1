"""Real quotes and collateral with one thing wrong, signed again: the change reaches the rule that it is about.

Every change draws from the dice that it is given and from nothing else: the same dice give the same verdicts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from random import Random
from typing import Any

from cryptography import x509

from attestation.providers import software_builders as build
from attestation.providers.software_builders import Issuer
from tests.support.quote_mutations import DOCUMENTS, Input, changed_tree, edited, reversioned
from tests.support.resigned_world import Draft, authority, certificate, draft_of, key_of, pck_of, revocations

NAMES = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA", "Intel SGX TCB Signing", "Intel SGX Root CA", "X")


def resigned(dice: Random, cases: Sequence[Input]) -> Input:
    """One random change to one of `cases`, signed again."""
    draft = draft_of(dice.choice(cases))
    change: Callable[[Random, Draft], None] = dice.choices(*zip(*CHANGES, strict=True))[0]
    draft.how = change.__name__.strip("_").replace("_", " ")
    change(dice, draft)
    return draft.sign()


# --- the quote ---

TD_FIELDS = ((0, 16), (0, 4), (16, 64), (64, 112), (112, 120), (120, 128), (128, 136), (136, 584), (584, 648))
"""First and behind the last byte of the fields of a TD report; the TCB's first bytes count double."""


def _td_field(dice: Random, draft: Draft) -> None:
    start = 48 if draft.signed[0] == 4 else 54
    low, high = dice.choice(TD_FIELDS)
    body = bytearray(draft.signed[start:])
    low, high = (0, 16) if low >= len(body) else (low, high)
    at = dice.randrange(low, high)
    body[at] = dice.choice((body[at] ^ 1 << dice.randrange(8), (body[at] + 1) % 256, (body[at] - 1) % 256, 0, 255))
    draft.signed = draft.signed[:start] + bytes(body)


def _later_tcb(dice: Random, draft: Draft) -> None:
    """A body of version 1.5 whose second TCB differs a little from its first one."""
    if draft.signed[0] == 4:
        draft.signed = reversioned(dice, draft.signed)
    if len(draft.signed) < 54 + 648:
        return
    later = bytearray(draft.signed[54:70])
    for _ in range(dice.choice((0, 1, 1, 2))):
        at = dice.choice((0, 1, 2, 3, dice.randrange(16)))
        later[at] = max(0, min(255, later[at] + dice.choice((-2, -1, 1, 2))))
    draft.signed = draft.signed[: 54 + 584] + bytes(later) + bytes(48) + draft.signed[54 + 648 :]


def _header(dice: Random, draft: Draft) -> None:
    at = dice.randrange(54 if draft.signed[0] == 5 else 48)
    draft.signed = draft.signed[:at] + bytes([draft.signed[at] ^ dice.randrange(1, 256)]) + draft.signed[at + 1 :]


def _other_version(dice: Random, draft: Draft) -> None:
    draft.signed = reversioned(dice, draft.signed)


def _qe_report(dice: Random, draft: Draft) -> None:
    low, high = dice.choice(((0, 384), (16, 20), (48, 64), (128, 160), (256, 258), (258, 260), (320, 384)))
    draft.vouch = low != 320
    if not draft.vouch:
        draft.qe_report[320:384] = build.vouch(authority().attestation_key, draft.auth_data)
    draft.qe_report[dice.randrange(low, high)] ^= dice.choice((1 << dice.randrange(8), dice.randrange(1, 256)))


def _qe_version(dice: Random, draft: Draft) -> None:
    draft.qe_report[258:260] = dice.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 65_535)).to_bytes(2, "little")


def _auth_data(dice: Random, draft: Draft) -> None:
    draft.auth_data = dice.randbytes(dice.choice((0, 1, 31, 32, 33, 64, 1000, 12_000)))


# --- the documents ---


def _document(dice: Random, draft: Draft) -> None:
    name = dice.choice(DOCUMENTS)
    tree = json.loads(draft.texts[name])
    for _ in range(dice.choice((1, 1, 1, 2))):
        changed_tree(dice, tree)
    draft.texts[name] = json.dumps(tree).encode()


def _levels(dice: Random, draft: Draft) -> None:
    """Levels with other statuses, advisories and numbers, which is what decides the verdict."""
    for name in DOCUMENTS:
        tree = json.loads(draft.texts[name])
        groups = [tree["tcbLevels"], *(module["tcbLevels"] for module in tree.get("tdxModuleIdentities", ()))]
        for levels in groups:
            for level in dice.sample(levels, min(len(levels), dice.choice((0, 1, 2)))):
                _relevel(dice, level)
            if dice.random() < 0.2:
                levels.append(json.loads(json.dumps(dice.choice(levels))))
                _relevel(dice, levels[-1])
            levels.sort(key=rank, reverse=True)
        draft.texts[name] = json.dumps(tree).encode()


def rank(level: dict[str, Any]) -> tuple[Any, ...]:
    """Where a level stands among the others."""
    tcb = level["tcb"]
    if "isvsvn" in tcb:
        return (tcb["isvsvn"],)
    sgx, tdx = ([component["svn"] for component in tcb[key]] for key in ("sgxtcbcomponents", "tdxtcbcomponents"))
    return sgx, tcb["pcesvn"], tdx


def _relevel(dice: Random, level: dict[str, Any]) -> None:
    platform = "sgxtcbcomponents" in level["tcb"]
    kind = dice.randrange(4)
    if kind == 0:
        good = ["UpToDate", "UpToDate", "OutOfDate", "Revoked"]
        more = [
            "SWHardeningNeeded",
            "ConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded",
            "OutOfDateConfigurationNeeded",
        ]
        level["tcbStatus"] = dice.choice([*good, *(more if platform else ())])
    elif kind == 1:
        level["advisoryIDs"] = [f"INTEL-SA-{dice.randrange(3):05}" for _ in range(dice.randrange(3))]
    elif platform and dice.random() < 0.8:
        component = dice.choice(level["tcb"][dice.choice(("sgxtcbcomponents", "tdxtcbcomponents"))][:8])
        component["svn"] = max(0, min(255, component["svn"] + dice.choice((-2, -1, 1, 2))))
    else:
        key = "pcesvn" if platform else "isvsvn"
        level["tcb"][key] = max(0, level["tcb"][key] + dice.choice((-2, -1, 1, 2)))


def _status(dice: Random, draft: Draft) -> None:
    """Every level of one document at the same status: what the levels of the others make of it."""
    name = dice.choice(DOCUMENTS)
    component = "UpToDate", "OutOfDate", "Revoked"
    platform = (*component, "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")
    status = dice.choice(component if name == "qe_identity" else platform)
    tree = json.loads(draft.texts[name])
    for level in tree["tcbLevels"]:
        level["tcbStatus"] = status
    draft.texts[name] = json.dumps(tree).encode()


def _spelling(dice: Random, draft: Draft) -> None:
    """The same document in other words: spaces, a key twice, other forms of numbers and texts."""
    name = dice.choice(DOCUMENTS)
    text = draft.texts[name].decode()
    key = dice.choice(re.findall(r'"\w+":', text))
    draft.texts[name] = dice.choice(
        (
            lambda: json.dumps(json.loads(text), indent=1),
            lambda: json.dumps(json.loads(text), sort_keys=True),
            lambda: text.replace(key, f"{key}0,{key}", 1),
            lambda: text.replace(key, f'"{key[1:2]}" :', 1),
            lambda: re.sub(r":(\d+)", r":\1.0", text, count=1),
            lambda: re.sub(r":(\d+)", r":\1e0", text, count=1),
            lambda: re.sub(r":(\d+)", r":0\1", text, count=1),
            lambda: text.replace("{", '{"unknown":[NaN],', 1),
            lambda: text.replace("{", '{"unknown":{"a":1.5},', 1),
            lambda: "\ufeff" + text,
            lambda: text + dice.choice((" ", "\n", "\0", "}")),
            lambda: text.replace("TDX", "\\u0054DX"),
            lambda: edited(dice, text.encode()).decode(errors="replace"),
        )
    )().encode()


# --- certificates and lists ---


def _sgx_extension(dice: Random, draft: Draft) -> None:
    draft.extension = edited(dice, draft.extension)


def _certificates(dice: Random, draft: Draft) -> None:
    """A certificate of another name, kind, time or issuer, or a chain of another order."""
    known = authority()
    moved = dice.choice(({"not_after_s": draft.now - 1}, {"not_before_s": draft.now + 1}, {"not_after_s": draft.now}))
    usages = [build.build_usage(**{name: True}) for name in ("data", "certificates", "lists")]
    critical = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")
    changes: dict[str, Any] = dice.choice(
        (
            moved,
            moved,
            {"is_ca": dice.random() < 0.5},
            {"usage": dice.choice(usages)},
            {"extensions": [(critical, True)]},
            {"extensions": [(critical, False)]},
            {"key": key_of("another")},
            {},
        )
    )
    kind = dice.randrange(4)
    name = dice.choice((NAMES[0], NAMES[0], *NAMES))
    if kind == 0:
        issuer = dice.choice((known.pck_ca, known.pck_ca, known.root, known.signer))
        leaf = dice.choice(("Intel SGX PCK Certificate", "Intel SGX PCK Certificate", *NAMES))
        draft.pck = certificate(leaf, issuer, sgx_extension=draft.extension, **changes)
    elif kind == 1:
        issuer = certificate(name, dice.choice((known.root, known.root, known.signer)), **({"is_ca": True} | changes))
        draft.pck_signer = issuer
        draft.pck = certificate("Intel SGX PCK Certificate", issuer, sgx_extension=draft.extension)
        if dice.random() < 0.7:
            draft.parts["pck_crl_issuer_chain"] = build.build_chain(issuer, known.root)
            draft.parts["pck_crl"] = revocations(issuer)
    elif kind == 2:
        signer = certificate(dice.choice((NAMES[2], NAMES[2], *NAMES)), known.root, **changes)
        document = dice.choice(DOCUMENTS)
        draft.parts[f"{document}_issuer_chain"] = build.build_chain(signer, known.root)
        draft.parts[f"{document}_signature"] = build.sign(signer.key, draft.texts[document])
    else:
        order = dice.choices(range(3), k=dice.choice((1, 2, 3, 3, 4)))
        draft.chain = lambda chain: [chain[i] for i in order]


def _lists(dice: Random, draft: Draft) -> None:
    """A revocation list of another time, issuer or content."""
    known = authority()
    draft.pck = pck_of(draft.extension)
    name, issuer = dice.choice((("pck_crl", known.pck_ca), ("root_ca_crl", known.root)))
    holders = {"PCK": draft.pck, "PCK CA": known.pck_ca, "signer": known.signer, "root": known.root}
    issuers = {
        "PCK CA": known.pck_ca,
        "root": known.root,
        "signer": known.signer,
        "other key": replace(issuer, key=key_of("another")),
    }
    what, changed = dice.choice(
        (
            *((f"lists {holder}", revocations(issuer, _serial(it))) for holder, it in holders.items()),
            ("lists others", revocations(issuer, _serial(draft.pck) + 1, 1, 2)),
            *((f"issued {delta} s from now", revocations(issuer, this_s=draft.now + delta)) for delta in (0, 1)),
            *((f"due {delta} s from now", revocations(issuer, next_s=draft.now + delta)) for delta in (-1, 0, 1)),
            *((f"of {name}", revocations(it)) for name, it in issuers.items()),
            ("cut short", revocations(issuer)[: -dice.choice((1, 10))]),
        )
    )
    draft.how = f"{name} {what}"
    draft.parts[name] = changed


def _edges_of_time(dice: Random, draft: Draft) -> None:
    """A moment at, just before or just after an edge of a document's validity."""
    moments = re.findall(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "".join(draft.texts[name].decode()[:400] for name in DOCUMENTS)
    )
    edge = dice.choice(moments)
    draft.now = int(datetime.fromisoformat(edge).timestamp()) + dice.choice((-1, 0, 1))


def _nothing(_dice: Random, _draft: Draft) -> None:
    pass


CHANGES: list[tuple[Callable[[Random, Draft], None], int]] = [
    (_td_field, 14),
    (_later_tcb, 10),
    (_header, 4),
    (_other_version, 4),
    (_qe_report, 8),
    (_qe_version, 4),
    (_auth_data, 2),
    (_document, 12),
    (_levels, 16),
    (_status, 4),
    (_spelling, 4),
    (_sgx_extension, 6),
    (_certificates, 6),
    (_lists, 4),
    (_edges_of_time, 3),
    (_nothing, 1),
]


def _serial(holder: Issuer) -> int:
    return holder.certificate.serial_number
