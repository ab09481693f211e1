"""Why a file is no policy, for whoever wrote it: the whole key, what is expected there, and what was perhaps meant.

Pure. What is refused, and by which rule, is decided in `attestation.policy` and `gossip.policy`; their messages are
said in other words here, those of msgspec above all.
"""

from __future__ import annotations

import re
from typing import get_args

from agent.toml_errors import joined, meant
from attestation.gpu_policy import GpuGoldenTable
from attestation.policy import DEBUG_GROUP, AttestationPolicy
from attestation.types import PlatformFlag, TcbStatus, TdAttribute
from gossip.policy import Audit, Quality, Receipts, Reputation, Score, Timing, Work

_ATTESTATION = "attestation"
_KEYS = {
    "": ("timing", "work", "receipts", "score", "quality", "audit", "reputation", _ATTESTATION),
    "timing": Timing.__struct_fields__,
    "work": Work.__struct_fields__,
    "receipts": Receipts.__struct_fields__,
    "score": ("strategy", *dict.fromkeys(name for each in get_args(Score) for name in each.__struct_fields__)),
    "quality": Quality.__struct_fields__,
    "audit": Audit.__struct_fields__,
    "reputation": Reputation.__struct_fields__,
    _ATTESTATION: tuple(AttestationPolicy().to_mapping()),
    "attestation.measurements": ("name", "mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3"),
    "attestation.gpu_measurements": GpuGoldenTable.__struct_fields__,
}
"""The keys of each table."""
_CHOICES = {
    "attestation.tcb_statuses": [status.value for status in TcbStatus if status is not TcbStatus.REVOKED],
    "attestation.platform_flags_allowed": [flag.value for flag in PlatformFlag],
    "work.source": ["engine", "cocoon"],
    "receipts.ceiling": ["none", "receipts", "worker-contract"],
    "score.strategy": [str(each.__struct_config__.tag) for each in get_args(Score)],
    **{f"attestation.{key}": ['"any"', "a list"] for key in ("mr_seams", "fmspcs", "ppids_allowed")},
}
"""What a value may be, where it is one of a few."""
_TD_ATTRIBUTES = [str(bit.name) for bit in TdAttribute if not bit & DEBUG_GROUP]

_MSGSPEC = re.compile(r"(?P<what>(?:Object|Expected|Invalid|Cannot).*?)(?: - at `\$\.?(?P<place>[^`]*)`)?")
_FIELD = re.compile(r"Object (?P<how>contains unknown|missing required) field `(?P<name>[^`]*)`")
_ENUM = re.compile(r"Invalid (?:enum )?value (?P<value>.*)")
_OWN = re.compile(r"[a-z0-9_.]+: .*", re.DOTALL)


def explained(error: Exception) -> str:
    """The message of a policy's error with the whole key in front, as "attestation.gpus_min: expected ..."."""
    prefix, _, text = str(error).partition(": ")
    table = _ATTESTATION if prefix == "attestation policy" else ""
    if (found := _MSGSPEC.fullmatch(text)) is not None:
        return _of_library(joined(table, found["place"] or ""), found["what"])
    if table and _OWN.fullmatch(text):
        return f"{table}.{text}"
    if text.startswith("TD attribute "):
        return f"{_ATTESTATION}: {text}; known are {', '.join(_TD_ATTRIBUTES)}"
    return str(error)


def _of_library(place: str, what: str) -> str:
    if (field := _FIELD.fullmatch(what)) is not None:
        key = joined(place, field["name"])
        if field["how"] == "missing required":
            return f"{key}: missing"
        return f"{key}: unknown key{meant(field['name'], _KEYS.get(_table(place), ()))}"
    if (value := _ENUM.fullmatch(what)) is not None and _table(place) in _CHOICES:
        choices = _CHOICES[_table(place)]
        return f"{place}: {value['value']}, expected one of: {', '.join(choices)}"
    return f"{place or 'top level'}: {what[:1].lower()}{what[1:]}"


def _table(place: str) -> str:
    """The place without its indexes."""
    return re.sub(r"\[[^\]]*\]", "", place)
