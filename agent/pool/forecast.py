"""A dry run for people and for `--json`: what each contract would do, what it costs, who gains and loses."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from typing import Any

from pytoniq_core import Cell

from agent.pool.values import plain, told, utc
from agent.screens import ton_exact
from contracts import layout
from contracts.commands import SlashReason
from contracts.devchain.accounts import AppliedTransaction
from contracts.dry_run import Forecast, is_refused
from contracts.errors import InvalidCellError
from contracts.layout.bodies import EVENTS
from contracts.layout.codec import COINS, Field
from contracts.model import Address, CertificateKind, ParticipantStatus, UpgradeTarget
from contracts.opcodes import Event, Op, describe_exit, explain_exit

_BOUNCED = (0xFFFFFFFF, 0xFFFFFFFE)
_MOMENTS = ("until", "not_before", "withdraw_at")
_ENUMS: Mapping[str, type[IntEnum]] = {
    "kind": CertificateKind,
    "reason": SlashReason,
    "status": ParticipantStatus,
    "target": UpgradeTarget,
}
FOREVER_S = 2**32 - 1
"""The end of a pause without one."""


def forecast_value(forecast: Forecast, names: Mapping[Address, str]) -> dict[str, Any]:
    """A dry run as JSON. `names` says what each account is to the user."""
    refusal = forecast.refusal
    names = {**_born(forecast), **names}
    return {
        "dry_run": True,
        "block": forecast.block.seqno,
        "block_time_s": forecast.block.time_s,
        "refusal": None if refusal is None else _refusal_value(refusal, names),
        "transactions": [_transaction_value(each, names) for each in forecast.transactions],
        "fees_nanoton": forecast.fees_nanoton,
        "balances": [
            {
                "account": names.get(address, str(address)),
                "address": str(address),
                "change_nanoton": forecast.after[address] - before,
            }
            for address, before in forecast.before.items()
            if forecast.after[address] != before
        ],
    }


def forecast_text(value: Mapping[str, Any]) -> str:
    """The same for people."""
    out = [f"dry run at block {value['block']} ({utc(value['block_time_s'])}); nothing was sent"]
    for each in value["transactions"]:
        end = "ok" if each["ok"] else f"refused: {describe_exit(each['exit_code'])} ({each['exit_code']})"
        out.append(
            f"  {each['account']}: {each['op']}: {end}; gas {each['gas']:,}, fees {ton_exact(each['fees_nanoton'])}"
        )
        for event in each["events"]:
            details = ", ".join(f"{name} {told(name, item)}" for name, item in event["values"].items())
            out.append(f"    event {event['event']}{': ' + details if details else ''}")
    out.append(f"fees of the network: {ton_exact(value['fees_nanoton'])}")
    out += [f"  {each['account']}: {_signed(each['change_nanoton'])}" for each in value["balances"]]
    refusal = value["refusal"]
    if refusal is None:
        out.append("it would succeed")
    else:
        out.append(
            f"it would be refused by the {refusal['account']}: {refusal['name']} ({refusal['exit_code']}): "
            f"{refusal['meaning']}"
        )
    return "\n".join(out)


def _signed(nanoton: int) -> str:
    return ("-" if nanoton < 0 else "+") + ton_exact(abs(nanoton))


def _refusal_value(transaction: AppliedTransaction, names: Mapping[Address, str]) -> dict[str, Any]:
    code = _code_of(transaction)
    return {
        "account": names.get(transaction.address, str(transaction.address)),
        "exit_code": code,
        "name": describe_exit(code),
        "meaning": explain_exit(code),
    }


def _transaction_value(transaction: AppliedTransaction, names: Mapping[Address, str]) -> dict[str, Any]:
    events = [_event_value(out.body) for out in transaction.out_messages if out.dest is None]
    return {
        "account": names.get(transaction.address, str(transaction.address)),
        "op": _op_name(transaction),
        "ok": not is_refused(transaction),
        "exit_code": _code_of(transaction),
        "gas": transaction.gas_used,
        "fees_nanoton": transaction.fees_nanoton,
        "events": events,
    }


def _code_of(transaction: AppliedTransaction) -> int:
    """What it failed with, or 0. Without gas no code runs: TVM's own number for that."""
    if transaction.exit_code not in (None, 0, 1):
        return transaction.exit_code
    if transaction.action_code:
        return transaction.action_code
    return -14 if is_refused(transaction) else 0


def _op_name(transaction: AppliedTransaction) -> str:
    if transaction.in_source is None:
        return "transfer"
    if transaction.in_op is None:
        return "payment"
    if transaction.in_op in _BOUNCED:
        return "bounced"
    try:
        return Op(transaction.in_op).name.lower()
    except ValueError:
        return f"op {transaction.in_op:#010x}"


def _event_value(body: Cell) -> dict[str, Any]:
    try:
        event = layout.read_event(body)
    except InvalidCellError:
        return {"event": "unknown", "values": {"hash": body.hash.hex()}}
    amounts = {
        field.name for field in EVENTS[Event(event.op)].fields if isinstance(field, Field) and field.codec is COINS
    }
    named = {_field_name(name, name in amounts): _named(name, value) for name, value in event.values.items()}
    return {"event": Event(event.op).name.lower().removeprefix("event_"), "values": named}


def _field_name(name: str, is_amount: bool) -> str:
    return name + ("_nanoton" if is_amount else "_s" if name in _MOMENTS else "")


def _named(name: str, value: Any) -> Any:
    """A field as JSON; a number that has a name, by its name."""
    if name in _ENUMS:
        with suppress(ValueError):
            return plain(_ENUMS[name](value))
    return None if name in _MOMENTS and value == FOREVER_S else plain(value)


def _born(forecast: Forecast) -> dict[Address, str]:
    """The children of a pool that would come to be: their names stand in what it logs."""
    for transaction in forecast.transactions:
        for out in transaction.out_messages:
            with suppress(InvalidCellError):
                event = layout.read_event(out.body)
                if event.op is Event.EVENT_POOL_INITIALISED:
                    return {event.values["registry"]: "registry", event.values["rewards"]: "rewards"}
    return {}
