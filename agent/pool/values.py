"""Any value of the contracts for people and for `--json`: what operators sign is shown from it.

A field's last word says what it is: amounts (`_nanoton`), lengths of time and moments (`_s`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from pytoniq_core import Cell

from agent.screens import ton_exact
from agent.texts import legible as legible
from contracts.devchain.boc import to_boc
from contracts.model import DAY_S, HOUR_S, Address

_TEXT_MAX, _HEAD = 256, 64
"""More of a text, such as a message's body, would push what matters out of sight."""

_DURATIONS = ("delay_s", "timeout_s", "duration_s", "uptime_s")


def utc(time_s: int) -> str:
    """A time for people, to the minute."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def span(seconds: int) -> str:
    """A length of time in the largest unit that fits without a rest."""
    for unit, name in ((DAY_S, "d"), (HOUR_S, "h"), (60, "min")):
        if seconds and seconds % unit == 0:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def plain(value: Any) -> Any:
    """A value of the contracts as JSON has it: hashes in hex, addresses raw, numbers of an enum by name."""
    if is_dataclass(value) and not isinstance(value, Address):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, IntEnum):
        return value.name.lower()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Cell):
        return base64.b64encode(to_boc(value)).decode()
    return str(value) if isinstance(value, Address) else value


def lines(value: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What `plain` made, a line a field: `name value`; amounts and times also as people read them."""
    out: list[str] = []
    for name, each in value.items():
        if isinstance(each, Mapping):
            out += lines(each, f"{prefix}{name}.")
        elif isinstance(each, list):
            for i, item in enumerate(each):
                out += lines(item, f"{prefix}{name}[{i}].") if isinstance(item, Mapping) else [f"{name}[{i}] {item}"]
        else:
            out.append(f"{prefix}{name} {told(name, each)}")
    return out


def told(name: str, value: Any) -> str:
    """One field's value for people."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return legible(value if len(value) <= _TEXT_MAX else f"{value[:_HEAD]}... ({len(value)} characters)")
    if name.endswith("_nanoton"):
        return f"{value} ({ton_exact(value)})"
    if name.endswith(_DURATIONS):
        return f"{value} ({span(value)})"
    return f"{value} ({utc(value)})" if name.endswith("_s") else str(value)


def command_value(command: Any) -> dict[str, Any]:
    """A command as JSON: its kind and its fields."""
    return {"kind": command.kind.name.lower(), **plain(command)}


def changes(old: Any, new: Any) -> list[str]:
    """What differs between two values of one class, a line a field."""
    before, after = _flat(plain(old)), _flat(plain(new))
    return [
        f"{name} {told(name, before[name])} -> {told(name, after[name])}"
        for name in before
        if before[name] != after[name]
    ]


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value) if isinstance(value, Mapping) else {name: value}
    return flat
