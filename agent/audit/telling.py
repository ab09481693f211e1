"""A verification as JSON, and for people: each check with what it found, then what had to be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.audit.bundle import Bundle
from agent.audit.verifying import Verification
from agent.texts import legible

_MARKS = {True: "holds", False: "FAILS", None: "-"}


def verification_value(bundle: Bundle, found: Verification) -> dict[str, Any]:
    """What was found, as JSON; hashes in hex, None for what could not be found out."""
    return {
        "network": bundle.pool.network,
        "pool": f"0:{bundle.pool.account.hex()}",
        "epoch": bundle.epoch,
        "is_same": found.is_same,
        "landed": None if found.landed is None else found.landed.hex(),
        "recomputed": None if found.recomputed is None else found.recomputed.hex(),
        "checks": [
            {"name": step.name, "holds": step.holds, "text": step.text, "findings": list(step.findings)}
            for step in found.steps
        ],
        "differences": [
            {
                "participant": None if each.participant is None else str(each.participant),
                "node_key": None if each.node_key is None else each.node_key.hex(),
                "figure": each.figure,
                "settled": each.settled,
                "recomputed": each.recomputed,
                "records": None if each.records is None else list(each.records),
            }
            for each in found.differences
        ],
        "notes": list(found.notes),
        "believed": list(found.believed),
    }


def verification_text(value: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = [f"epoch {value['epoch']} of pool {value['pool']} on network {value['network']}; file {value['sha256']}"]
    for check in value["checks"]:
        lines.append(f"{check['name']:<12}{_MARKS[check['holds']]:<7}{check['text']}")
        lines += [f"{'':<19}{legible(finding)}" for finding in check["findings"]]
    lines += [f"note: {legible(each)}" for each in value["notes"]]
    if value["believed"]:
        lines.append("believed:")
        lines += [f"  {legible(each)}" for each in value["believed"]]
    lines.append(_verdict(value))
    return "\n".join(lines)


def _verdict(value: Mapping[str, Any]) -> str:
    if value["is_same"]:
        return f"same, as far as what is believed is true: {value['landed']} landed, and follows"
    if value["recomputed"] is not None and value["recomputed"] != value["landed"]:
        return f"DIFFERS, as far as what is believed is true: landed {value['landed']}, follows {value['recomputed']}"
    return "NOT SHOWN: the bundle does not hold; what landed may still be right"
