"""A pytest plugin that writes down what TVM ran: for coverage, and to know which test sees which refusal.

    python -m pytest tests/contracts -p tests.contracts.tools.tracing --vm-trace trace.json
    python -m pytest tests/contracts -p tests.contracts.tools.tracing --vm-exits exits.json

`trace.json` (for `contracts/sandbox/coverage.mjs`) maps the hash of each code cell to the offsets in bits of the
instructions that ran in it; `exits.json` (for `tools/mutate.py`) maps each `contract:exit code` to the tests in
which an execution of that contract ended with it. Without the plugin nothing is logged and nothing is slower.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from pytoniq_core import Cell

from contracts import layout
from contracts.devchain import ledger
from contracts.devchain.accounts import StoredAccount, read_account, read_transaction
from contracts.devchain.emulator import Executed, GetMethodResult, NotExecuted, TvmEmulator
from contracts.layout import ContractName
from contracts.model import Address

_PLACE = re.compile(r"code cell hash: ([0-9A-F]{64}) offset: (\d+)")


class Tracer:
    """What the tests of one run have executed so far."""

    def __init__(self) -> None:
        self.places: defaultdict[str, set[int]] = defaultdict(set)
        self.exits: defaultdict[str, set[str]] = defaultdict(set)
        self.test = ""

    def on_vm_log(self, log: str) -> None:
        for cell_hash, offset in set(_PLACE.findall(log)):
            self.places[cell_hash.lower()].add(int(offset))

    def on_exit(self, code: Cell | None, exit_code: int | None) -> None:
        if code is not None and exit_code is not None:
            self.exits[f"{_names().get(bytes(code.hash), 'another')}:{exit_code}"].add(self.test)


class TracingEmulator(TvmEmulator):
    """The emulator, telling `tracer` about every execution."""

    tracer: Tracer
    on_vm_log: Callable[[str], None] | None

    def __init__(self, config: Cell) -> None:
        super().__init__(config, on_vm_log=self.on_vm_log)

    def run_transaction(self, account: StoredAccount, message: Cell, **when: Any) -> Executed | NotExecuted:
        outcome = super().run_transaction(account, message, **when)
        if isinstance(outcome, Executed):
            after = read_account(_NOWHERE, outcome.account.cell)
            self.tracer.on_exit(after.code, read_transaction(outcome.transaction).exit_code)
        return outcome

    def run_get_method(self, *, code: Cell, **call: Any) -> GetMethodResult:
        result = super().run_get_method(code=code, **call)
        self.tracer.on_exit(code, result.exit_code)
        return result


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vm-trace", type=Path, help="write the executed instructions of the contracts here")
    parser.addoption("--vm-exits", type=Path, help="write which test saw which exit code here")


def pytest_configure(config: pytest.Config) -> None:
    tracer = Tracer()
    on_vm_log = tracer.on_vm_log if config.getoption("--vm-trace") else None
    emulator = type("Emulator", (TracingEmulator,), {"tracer": tracer, "on_vm_log": on_vm_log})
    patch = pytest.MonkeyPatch()
    patch.setattr(ledger, "TvmEmulator", emulator)
    config.add_cleanup(patch.undo)
    config.stash[_TRACER] = tracer


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    item.config.stash[_TRACER].test = item.nodeid
    return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    tracer = session.config.stash[_TRACER]
    _write(session.config.getoption("--vm-trace"), tracer.places)
    _write(session.config.getoption("--vm-exits"), tracer.exits)


def _write(path: Path | None, table: dict[Any, set[Any]]) -> None:
    if path is not None:
        path.write_text(json.dumps({key: sorted(table[key]) for key in sorted(table)}))


@cache
def _names() -> dict[bytes, ContractName]:
    names: tuple[ContractName, ...] = get_args(ContractName)
    return {bytes(layout.code(name).hash): name for name in names}


_NOWHERE = Address(0, bytes(32))
_TRACER = pytest.StashKey[Tracer]()
