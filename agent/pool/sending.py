"""One message through the wallet: sent and followed until the contracts have done with it, or only rehearsed.

Rules:
1. A message carries a query id of its own, by which it is traced through the contracts (`agent.trace`).
2. It is done when the contract at which its way ends (`Operation.final`) took it.
3. A contract that refuses ends it at once, with the refusal's name and meaning.
4. A rehearsal makes the same message, runs it in the emulator on proven state, and sends nothing. The emulator
   is loaded for that alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from pytoniq_core import Cell

from agent.errors import OperationError
from agent.output import EXIT_FAILED, answer, note
from agent.pool.session import PoolSession
from agent.screens import ton_exact
from agent.trace import Trace
from contracts.chain import TransactionSummary
from contracts.model import NANO, Address
from contracts.wallet import OutMessage

if TYPE_CHECKING:
    from contracts.dry_run import Forecast

CONFIRM_TIMEOUT_S = 60.0
CONFIRM_INTERVAL_S = 0.5
GAS_RESERVE_NANOTON = NANO // 20

_OP_BITS, _QUERY_ID_BITS = 32, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A message to one of the pool's contracts; `what` completes "... was not confirmed"."""

    what: str
    dest: Address
    value_nanoton: int
    body: Cell
    final: Address | None = None
    """The contract at which its way ends; None: `dest`."""
    state_init: Cell | None = None

    @property
    def query_id(self) -> int:
        head = self.body.begin_parse()
        head.load_uint(_OP_BITS)
        return int(head.load_uint(_QUERY_ID_BITS))

    @property
    def message(self) -> OutMessage:
        return OutMessage(
            dest=self.dest, value_nanoton=self.value_nanoton, body=self.body, bounce=True, state_init=self.state_init
        )


async def carry_out(session: PoolSession, options: argparse.Namespace, operation: Operation) -> int | None:
    """Perform the operation and return None; or, with --dry-run, show what it would do and return the exit code."""
    if options.dry_run:
        return await show_forecast(session, options, operation)
    await perform(session, operation)
    return None


async def show_forecast(session: PoolSession, options: argparse.Namespace, operation: Operation) -> int:
    """Show what the operation would do, and send nothing; the exit code. Raises as `rehearse` does."""
    from agent.pool.forecast import forecast_text, forecast_value

    await _require_balance(session, operation)
    forecast = await rehearse(session, operation)
    names = {**await session.contracts(), session.wallet.address: "wallet"}
    value = forecast_value(forecast, names)
    return answer(options, value, forecast_text(value)) or (EXIT_FAILED if forecast.refusal else 0)


async def perform(session: PoolSession, operation: Operation) -> TransactionSummary:
    """Send the message, and wait until the contracts have done with it; the transaction that ends its way.

    Raises:
        RefusedError: a contract refused it; what it carried came back, less the gas.
        OperationError: the wallet holds too little, or the chain shows no outcome within `CONFIRM_TIMEOUT_S`.
        ContractsError: the chain does not answer, or the wallet refuses the transfer.
    """
    await _require_balance(session, operation)
    trace = Trace(session.chain, await session.contracts(), operation.query_id)
    await trace.begin()
    try:
        await session.wallet.transfer([operation.message])
        with trio.move_on_after(CONFIRM_TIMEOUT_S):
            while True:
                landed = await trace.taken_by(operation.final or operation.dest)
                if landed is not None:
                    return landed
                await trio.sleep(CONFIRM_INTERVAL_S)
    except KeyboardInterrupt:
        note(f"interrupted; {operation.what} may have been sent all the same: look at `gpupool pool status` first")
        raise
    raise OperationError(
        f"{operation.what} was not confirmed within {CONFIRM_TIMEOUT_S:.0f} s; see `gpupool pool status`"
    )


async def rehearse(session: PoolSession, operation: Operation) -> Forecast:
    """What the message would do now; nothing is sent.

    Raises:
        MessageRefusedError: the wallet holds too little, or does not take the transfer.
        ContractsError: the chain does not answer, or the emulator cannot run.
    """
    from contracts.dry_run import dry_run

    message = await session.wallet.rehearsal([operation.message])
    block = await session.chain.head()
    return await dry_run(session.chain, message, block, known=[*await session.contracts(), session.wallet.address])


async def _require_balance(session: PoolSession, operation: Operation) -> None:
    wallet = session.wallet
    balance = (await session.chain.account(wallet.address)).balance_nanoton
    if balance < operation.value_nanoton + GAS_RESERVE_NANOTON:
        raise OperationError(
            f"wallet {wallet.address} holds {ton_exact(balance)}; "
            f"this takes {ton_exact(operation.value_nanoton)} and gas"
        )
