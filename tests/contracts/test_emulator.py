"""The wasm emulator: what it gives back, and that nothing it is fed can end it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import wasmtime
from pytoniq_core import Builder, Cell

from contracts.devchain import emulator
from contracts.devchain.accounts import StoredAccount, absent_account, funded_account, internal_message, read_account
from contracts.devchain.emulator import Executed, NotExecuted, TvmEmulator
from contracts.devchain.errors import EmulatorTrapError, EmulatorUnavailableError, InvalidMessageError
from contracts.devchain.network import devnet_config
from contracts.model import NANO
from tests.contracts.chain_scene import NOBODY, RECEIVER, START_S

SEED = bytes(32)


@pytest.fixture(scope="module")
def tvm() -> TvmEmulator:
    return TvmEmulator(devnet_config())


def transfer(body: Cell | None = None) -> Cell:
    return internal_message(
        source=NOBODY,
        dest=RECEIVER,
        value_nanoton=NANO,
        body=body or Cell.empty(),
        state_init=None,
        bounce=False,
        lt=1,
        now=START_S,
    )


def run(tvm: TvmEmulator, account: Cell, message: Cell) -> Executed | NotExecuted:
    return tvm.run_transaction(StoredAccount.from_cell(account), message, now=START_S, lt=1_000_000, rand_seed=SEED)


def test_a_transfer_arrives(tvm: TvmEmulator) -> None:
    outcome = run(tvm, absent_account(), transfer())
    assert isinstance(outcome, Executed)
    assert read_account(RECEIVER, outcome.account.cell).balance_nanoton == NANO


def test_the_same_input_gives_the_same_transaction(tvm: TvmEmulator) -> None:
    account = funded_account(RECEIVER, NANO, START_S)
    first, second = run(tvm, account, transfer()), run(TvmEmulator(devnet_config()), account, transfer())
    assert isinstance(first, Executed)
    assert first == second


def test_a_trap_costs_the_instance_and_nothing_else(tvm: TvmEmulator) -> None:
    run(tvm, absent_account(), transfer())
    tvm._emulator = 0xFFFF0000  # a pointer past the guest's memory: a real trap
    with pytest.raises(EmulatorTrapError):
        run(tvm, absent_account(), transfer())
    assert isinstance(run(tvm, absent_account(), transfer()), Executed)


def test_a_deep_message_stays_outside(tvm: TvmEmulator) -> None:
    body = Cell.empty()
    for _ in range(emulator.DEPTH_MAX):
        body = Builder().store_ref(body).end_cell()
    with pytest.raises(InvalidMessageError, match="depth"):
        run(tvm, absent_account(), transfer(body))


def test_a_changed_vendored_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator, "_VENDOR", tmp_path)
    with pytest.raises(EmulatorUnavailableError, match="No such file"):
        emulator.default_config()
    (tmp_path / "config.boc").write_bytes(b"something else")
    with pytest.raises(EmulatorUnavailableError, match="sha256"):
        emulator.default_config()


def test_the_sums_in_the_code_are_those_beside_the_files() -> None:
    lines = (Path(emulator.__file__).parent / "vendor" / "SHA256SUMS").read_text().splitlines()
    assert {name: digest for digest, name in map(str.split, lines)} == emulator._SHA256


class TestCache:
    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        self.compiled = 0
        self.engine = wasmtime.Engine()

    def load(self) -> wasmtime.Module:
        def compile_module() -> wasmtime.Module:
            self.compiled += 1
            return wasmtime.Module(self.engine, '(module (func (export "here")))')

        return emulator._cached(self.engine, compile_module)

    def test_it_compiles_once(self) -> None:
        assert [e.name for e in self.load().exports] == [e.name for e in self.load().exports] == ["here"]
        assert self.compiled == 1
        assert emulator.cache_path().stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize("keep", [0, 31, 32, 100, -1])
    def test_a_torn_file_is_ignored_and_replaced(self, keep: int) -> None:
        self.load()
        path = emulator.cache_path()
        path.write_bytes(path.read_bytes()[:keep])
        self.load()
        assert self.compiled == 2
        self.load()
        assert self.compiled == 2

    def test_what_another_program_left_is_ignored(self) -> None:
        self.load()
        foreign = b"not a module of this wasmtime"
        emulator.cache_path().write_bytes(hashlib.sha256(foreign).digest() + foreign)
        self.load()
        assert self.compiled == 2

    def test_another_users_file_is_not_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.load()
        monkeypatch.setattr(emulator.os, "getuid", lambda: 4_000_000)
        self.load()
        assert self.compiled == 2

    def test_no_place_for_a_cache_is_no_failure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert self.load().exports
