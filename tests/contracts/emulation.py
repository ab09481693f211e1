"""Ledgers that share one emulator: making one takes longer than most tests."""

from __future__ import annotations

from functools import cache

from contracts.devchain import ledger
from contracts.devchain.emulator import TvmEmulator
from contracts.devchain.ledger import Ledger
from contracts.devchain.network import devnet_config


def new_ledger(now: int) -> Ledger:
    """An empty ledger at unix time `now`. For tests in the main thread."""
    return Ledger(now=now, emulator=_emulator())


@cache
def _emulator() -> TvmEmulator:
    return ledger.TvmEmulator(devnet_config())  # looked up there, where tools replace it
