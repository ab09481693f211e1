"""Checks of the other agents: whether they are reached, and have said how far they know the own log.

They come before those of the own evidence: none is made before the own log is known.
"""

from __future__ import annotations

from agent.doctor.checks import Check, Trouble
from agent.doctor.facts import Facts, known
from agent.doctor.findings import FindingClass, Severity
from agent.doctor.status_form import PeerForm

SHOWN = 4

_PROBLEM, _WARNING, _NOTE = Severity.PROBLEM, Severity.WARNING, Severity.NOTE


def _alone(facts: Facts) -> Trouble | None:
    roster = _roster(facts)
    if not roster or any(peer.connected for peer in roster):
        return None
    errors = [f"{peer.node_key[:16]}: {text}" for peer in roster for text in peer.dial_errors]
    why = "; ".join(errors[:SHOWN]) or "nobody's address is known, and nobody dials this node"
    return Trouble(f"no other agent is connected: {why}", "check the firewall; name an operator in p2p.peers")


def _roster(facts: Facts) -> list[PeerForm]:
    return [peer for peer in known(facts.status().peers) if peer.in_roster]


def _reach(facts: Facts) -> Trouble | None:
    reach = known(facts.status().reach)
    if 3 * reach.weight > 2 * reach.total_weight:
        return None
    return Trouble(
        f"operators with {reach.weight} of {reach.total_weight} of the weight are in reach, not more than two thirds: "
        "as seen from here no epoch can settle",
        "see which operators are away (gpupool status), and the firewall",
    )


def _other_protocol(facts: Facts) -> Trouble | None:
    return _rift(facts, "protocol")


def _other_tally(facts: Facts) -> Trouble | None:
    return _rift(facts, "tally")


def _rift(facts: Facts, what: str) -> Trouble | None:
    """Operators of another version; a problem once too few are left for epochs to settle.

    Any operator can say that it is of whatever version: what few of them say is a note.
    """
    rift = next((each for each in known(facts.status().versions).rifts if each.what == what), None)
    if rift is None:
        return None
    if not rift.stops:
        return Trouble(rift.text, "see who is older: gpupool upgrade check", _NOTE)
    fix = "upgrade this agent (gpupool upgrade check)" if rift.is_outdated else "ask their owners to upgrade"
    return Trouble(rift.text, fix)


def _operators_away(facts: Facts) -> Trouble | None:
    away = [peer for peer in _roster(facts) if peer.role == "operator" and not peer.connected]
    if not away:
        return None
    names = ", ".join(peer.node_key[:16] + _first(peer.dial_errors) for peer in away[:SHOWN])
    more = f" and {len(away) - SHOWN} more" if len(away) > SHOWN else ""
    return Trouble(f"operators are away: {names}{more}", "ask them; what they do not witness counts less")


def _first(errors: list[str]) -> str:
    return f" ({errors[0]})" if errors else ""


def _not_dialled(facts: Facts) -> Trouble | None:
    named = known(facts.status().not_dialled)
    if not named:
        return None
    text = "; ".join(f"{key}: {reason}" for key, reason in named.items())
    return Trouble(text, "take it out of p2p.peers, or mend its node_key")


def _undialable(facts: Facts) -> Trouble | None:
    if known(facts.status().dialled_at):
        return None
    return Trouble(
        "nobody can dial this node: it tells no address of its own",
        "announce a public address (p2p.announce), see docs/networking.md; an agent that only dials takes part, too",
    )


def _log_unknown(facts: Facts) -> Trouble | None:
    if known(facts.status().agent).is_own_log_known:
        return None
    return Trouble(
        "the agent waits until operators of more than two thirds of the weight say how far they know its log",
        "see that they are reached; until then no work becomes a record",
    )


CHECKS = tuple(
    Check(code=code, clazz=FindingClass.NETWORK, severity=severity, fine=fine, look=look)
    for code, severity, fine, look in (
        ("peers-other-version", _PROBLEM, "the operators speak this agent's protocol", _other_protocol),
        ("tally-differs", _PROBLEM, "the operators compute this agent's tally", _other_tally),
        ("alone", _PROBLEM, "other agents are connected", _alone),
        ("reach-short", _PROBLEM, "more than two thirds of the operators' weight are in reach", _reach),
        ("operators-away", _WARNING, "all operators are connected", _operators_away),
        ("peer-not-dialled", _WARNING, "all of p2p.peers are registered", _not_dialled),
        ("not-dialable", _NOTE, "others can dial this node", _undialable),
        ("log-unknown", _PROBLEM, "the own log is known", _log_unknown),
    )
)
