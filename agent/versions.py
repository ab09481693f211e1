"""Versions: which run of which agent this is, and what is told of a pool in which not all are of one version.

Decides words and no more; who is of what version is found by `gossip.acquaintances`. Agents' versions are text of
peers, printable and bounded there; here they are counted under so many names at most. That metrics have few series
over the life of the process is for `agent.metrics.kinds.Census`.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from agent.journal import Journal
from gossip.acquaintances import Acquaintances, Rift, Run, Terms
from gossip.greeting import rival_text
from gossip.hello import AGENT_LENGTH_MAX, INSTANCE_ID_BYTES, PROTOCOLS, TALLIES
from gossip.roster import Roster

AGENTS_SHOWN_MAX = 8
"""Agents' versions that are told apart; all others are one."""
OTHER_AGENTS = "other"
_VERSION = re.compile(r"[a-z][a-z-]{0,23}/[0-9]{1,4}(\.[0-9]{1,4}){0,3}((a|b|rc|\.dev|\.post)[0-9]{1,4})?")
"""An agent's name and its version, of the forms of PEP 440 that releases have."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

E = TypeVar("E", bound=Exception)


def begin_run(journal: Journal, file: Path, version: str, started_s: int) -> Run:
    """Begin a run with this journal, which stands at `file`: it is noted there before anybody hears of it."""
    key = secrets.token_bytes(INSTANCE_ID_BYTES)
    ended = journal.begin_run(key, started_s, place_of(file), version)
    return Run(agent=f"gpupool-agent/{version}"[:AGENT_LENGTH_MAX], id=key, started_s=started_s, ended=ended)


def place_of(file: Path) -> bytes:
    """Names the place of a journal, 16 bytes: this boot of this host, and this file on it.

    A copy of the file, on this host or another, is at another place; so is the same file after a reboot.
    """
    try:
        boot = BOOT_ID.read_bytes().strip()
    except OSError:
        boot = secrets.token_bytes(16)  # not known: then no place is the same as any other
    found = file.stat()
    return sha256(b"%s %d %d" % (boot, found.st_dev, found.st_ino)).digest()[:16]


def first_of(group: BaseExceptionGroup[E]) -> E:
    """One of the errors in a group."""
    (first, *_) = group.exceptions
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first


def count_agents(acquaintances: Acquaintances) -> dict[str, int]:
    """How many peers are of which agent's version; `AGENTS_SHOWN_MAX` names and one for the rest."""
    agents = acquaintances.agents()
    shown = Counter(dict(agents.most_common(AGENTS_SHOWN_MAX)))
    rest = agents.total() - shown.total()
    return {**dict(sorted(shown.items())), **({OTHER_AGENTS: rest} if rest else {})}


def count_versions(acquaintances: Acquaintances) -> Counter[str]:
    """How many peers are of which agent's version, for metrics: what looks like none is `OTHER_AGENTS`."""
    counted = Counter[str]()
    for agent, number in acquaintances.agents().most_common():
        counted[agent if _VERSION.fullmatch(agent) else OTHER_AGENTS] += number
    return counted


def versions_value(acquaintances: Acquaintances, roster: Roster, now_s: int) -> dict[str, Any]:
    """What the status says of versions and of the own key, JSON-ready."""
    rival = acquaintances.rival(now_s)
    return {
        "protocols": list(PROTOCOLS),
        "tallies": list(TALLIES),
        "instance": acquaintances.run.id.hex(),
        "agents": count_agents(acquaintances),
        "silent": sum(acquaintances.terms(key) is Terms.SILENT for key in roster.members),
        "operators": [
            {"node_key": key.hex(), "weight": weight, **_told_by(acquaintances, key)}
            for key, weight in sorted(roster.weights.items())
        ],
        "rifts": [rift_value(rift) for rift in acquaintances.rifts(roster.weights)],
        "key_in_use": None
        if rival is None
        else {
            "text": rival_text(rival, now_s),
            "instance": rival.instance.id.hex(),
            "started_s": rival.instance.started_s,
            "said_s": rival.instance.said_s,
            "heard_s": rival.heard_s,
            "told_by": rival.teller.hex(),
            "address": rival.address,
        },
    }


def peer_value(acquaintances: Acquaintances, node_key: bytes) -> dict[str, Any]:
    """What the status says of one peer's version."""
    hello = acquaintances.hello(node_key)
    return {
        "terms": acquaintances.terms(node_key).value,
        **_told_by(acquaintances, node_key),
        "policies": None if hello is None else [policy.hex() for policy in hello.policies],
        "started_s": None if hello is None else hello.instance.started_s,
    }


def _told_by(acquaintances: Acquaintances, node_key: bytes) -> dict[str, Any]:
    hello = acquaintances.hello(node_key)
    return {
        "agent": None if hello is None else hello.agent,
        "protocols": None if hello is None else list(hello.protocols),
        "tallies": None if hello is None else list(hello.tallies),
    }


def rift_value(rift: Rift) -> dict[str, Any]:
    return {
        "what": rift.what,
        "weight": rift.weight,
        "newer_weight": rift.newer_weight,
        "total_weight": rift.total_weight,
        "theirs": list(rift.theirs),
        "ours": list(rift.ours),
        "stops": rift.stops,
        "is_outdated": rift.is_outdated,
        "text": rift_text(rift),
    }


def rift_text(rift: Rift) -> str:
    """What to say of operators of another version, and to do."""
    ours, theirs = (", ".join(map(str, versions)) for versions in (rift.ours, rift.theirs))
    verb = "speaks" if rift.what == "protocol" else "computes"
    outcome = "epochs cannot settle with them" if rift.stops else "epochs settle without them"
    if 3 * (rift.total_weight - rift.weight) <= rift.total_weight:
        outcome = "epochs settle without this agent"
    if rift.is_outdated:
        advice = "upgrade this agent"
    elif rift.newer_weight:
        advice = "see whether there is a newer agent (gpupool upgrade check)"
    else:
        advice = "they have to upgrade"
    return (
        f"this agent {verb} {rift.what} {ours}; operators with {rift.weight} of {rift.total_weight} of the weight "
        f"are of {rift.what} {theirs}: {outcome}; {advice}"
    )
