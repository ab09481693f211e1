"""TON's own TVM emulator, run inside this process. Sole importer of wasmtime.

Decides nothing about the chain: one account and one message in, one transaction out; or one
get-method call. The wasm is the one that npm's `@ton/sandbox` ships (`vendor/README.md`).

Untrusted input: messages and contract code. Rules:
1. The vendored files must have the sha256 written here, else nothing is loaded.
2. A cell deeper than `DEPTH_MAX` is refused before the guest sees it (the guest recurses).
3. Whatever stops inside the guest (trap, abort, unreadable answer) raises `EmulatorTrapError` and
   discards the instance; the next call gets a fresh one. State of a chain never lives in here.
4. The compiled module is cached per user; a cache file that this user did not write whole, or that
   another version of wasmtime made, is ignored and written anew.

Deliberately elsewhere: emscripten's imports (`emscripten`), accounts and queues (`ledger`).
Source: TON `emulator/emulator-extern.cpp` as wrapped by `@ton/sandbox` 0.41 (`Executor.ts`).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import lzma
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import wasmtime
from pytoniq_core import Cell, HashMap

from contracts.devchain.accounts import StoredAccount
from contracts.devchain.boc import from_boc, to_boc
from contracts.devchain.emscripten import (
    CLOCK,
    CLOCK_WAT,
    EXPORTS,
    HOST,
    INVOKES,
    THROWS,
    HostFunctions,
    trampolines_wat,
)
from contracts.devchain.errors import (
    DevchainError,
    EmulatorTrapError,
    EmulatorUnavailableError,
    InvalidMessageError,
)
from contracts.model import Address

DEPTH_MAX = 256
GET_METHOD_GAS_MAX = 1_000_000

_VM_LOG_WITH_LOCATIONS = 2

_VENDOR = Path(__file__).parent / "vendor"
_WASM = "emulator.wasm.xz"
_SHA256 = {
    "emulator.wasm.xz": "6d3a3c38011c88d611162c634cf34a7a230d6a5a6a73ea0e3b77ffc749086e60",
    "config.boc": "2efd6c8dfeaf42f9d69a5ea8ad2780a6ea469b800cbc02c9cdc1d1e87c28bc58",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """The message led to a transaction (which may still have failed inside)."""

    account: StoredAccount
    transaction: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class NotExecuted:
    """An external message that the account did not accept. `exit_code` is None if no code ran."""

    reason: str
    exit_code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetMethodResult:
    exit_code: int
    gas_used: int
    stack: Cell


class TvmEmulator:
    """One emulator with one blockchain config. Not for use from several threads at once."""

    def __init__(self, config: Cell, *, on_vm_log: Callable[[str], None] | None = None) -> None:
        """Args:
        config: root of the config dictionary, as the masterchain state holds it.
        on_vm_log: gets TVM's log of each execution (code cell, offset and name of every instruction). Slow;
            what measures coverage asks for it.
        """
        self._config = _base64(config)
        self._on_vm_log = on_vm_log
        self._verbosity = 0 if on_vm_log is None else _VM_LOG_WITH_LOCATIONS
        self._libraries: dict[bytes, Cell] = {}
        self._guest: _Guest | None = None
        self._emulator = 0

    def publish(self, library: Cell) -> None:
        """Let every transaction from now on find what library cells of this hash stand for: for tests."""
        self._libraries[library.hash] = library

    def run_transaction(
        self, account: StoredAccount, message: Cell, *, now: int, lt: int, rand_seed: bytes
    ) -> Executed | NotExecuted:
        """Apply `message` to `account` at unix time `now` and logical time `lt`.

        Raises:
            InvalidMessageError: the message is deeper than `DEPTH_MAX`.
            EmulatorTrapError: the emulator stopped on this input.
        """
        if message.get_depth(0) > DEPTH_MAX:
            raise InvalidMessageError(f"message: depth {message.get_depth(0)} is more than {DEPTH_MAX}")
        parameters = {
            "utime": now,
            "lt": str(lt),
            "rand_seed": rand_seed.hex(),
            "ignore_chksig": False,
            "debug_enabled": False,
        }
        before = base64.b64encode(account.boc).decode()
        output = self._call("emulate", self._published(), before, _base64(message), json.dumps(parameters))
        try:
            if output["success"]:
                return Executed(
                    account=StoredAccount.from_boc(base64.b64decode(output["shard_account"])),
                    transaction=from_boc(base64.b64decode(output["transaction"])),
                )
            return NotExecuted(reason=str(output["error"]), exit_code=output.get("vm_exit_code"))
        except (KeyError, ValueError, DevchainError) as error:
            raise EmulatorTrapError(f"unreadable answer of the emulator: {error!r}") from error

    def run_get_method(
        self, *, address: Address, code: Cell, data: Cell, balance: int, method_id: int, stack: Cell, now: int
    ) -> GetMethodResult:
        """Run a get-method of the account that `code`, `data` and `balance` (nanoton) describe.

        Args: stack: `VmStack` cell of the arguments; method_id: uint17 in practice.
        Raises:
            InvalidMessageError: the arguments are deeper than `DEPTH_MAX`.
            EmulatorTrapError: the emulator stopped on this input.
        """
        if stack.get_depth(0) > DEPTH_MAX:
            raise InvalidMessageError(f"arguments: depth {stack.get_depth(0)} is more than {DEPTH_MAX}")
        parameters = {
            "code": _base64(code),
            "data": _base64(data),
            "verbosity": self._verbosity,
            "libs": "",
            "address": address.friendly(),
            "unixtime": now,
            "balance": str(balance),
            "rand_seed": bytes(32).hex(),
            "gas_limit": str(GET_METHOD_GAS_MAX),
            "method_id": method_id,
            "debug_enabled": False,
        }
        output = self._call("run_get_method", json.dumps(parameters), _base64(stack), self._config)
        try:
            return GetMethodResult(
                exit_code=int(output["vm_exit_code"]),
                gas_used=int(output["gas_used"]),
                stack=from_boc(base64.b64decode(output["stack"])),
            )
        except (KeyError, ValueError, DevchainError) as error:
            raise EmulatorTrapError(f"unreadable answer of the emulator: {error!r}") from error

    def warm_up(self) -> None:
        """Load (and compile, the first time for this user) what the next call needs; takes seconds at worst.

        Raises:
            EmulatorUnavailableError: the vendored files are missing or not the expected ones, or do not run here.
        """
        try:
            self._running()
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            self._guest = None
            raise EmulatorUnavailableError(f"the emulator does not start: {str(error)[:300]}") from error

    def _published(self) -> str | None:
        """The dictionary hash -> ^library, as the configuration of a masterchain block has it."""
        if not self._libraries:
            return None
        libraries = HashMap(256, value_serializer=lambda library, builder: builder.store_ref(library))
        for key, library in self._libraries.items():
            libraries.set_int_key(int.from_bytes(key, "big"), library)
        root = libraries.serialize()
        return None if root is None else _base64(root)

    def _running(self) -> _Guest:
        if self._guest is None:
            self._guest = _Guest()
            self._emulator = self._guest.call_with_texts("create_emulator", (), self._config, self._verbosity)
        return self._guest

    def _call(self, export: str, *texts: str | None) -> dict[str, Any]:
        try:
            guest = self._running()
            head = (self._emulator,) if export == "emulate" else ()
            answer = json.loads(guest.take_text(guest.call_with_texts(export, head, *texts)))
            if answer.get("fail"):
                raise ValueError(str(answer.get("message", "no reason given"))[:200])
            output = answer["output"]
            if not isinstance(output, dict):
                raise TypeError("output is not an object")
        except EmulatorUnavailableError:
            raise
        except Exception as error:
            self._guest = None
            raise EmulatorTrapError(f"{export}: {str(error)[:300]}") from error
        if self._on_vm_log is not None:
            self._on_vm_log(str(output.get("vm_log", "")))
        return output


def default_config() -> Cell:
    """The vendored blockchain config (fees and limits of mainnet), root of its dictionary."""
    return from_boc(_vendored("config.boc"))


class _Guest:
    """A running instance of the wasm: memory, exports, strings in and out."""

    def __init__(self) -> None:
        engine, module, trampolines, clock = _modules()
        self._store = wasmtime.Store(engine)
        host = HostFunctions(self)
        throws = [
            wasmtime.Func(self._store, i.type, host.function(short))
            for i, short in zip(trampolines.imports, THROWS, strict=True)
        ]
        shim = wasmtime.Instance(self._store, trampolines, throws).exports(self._store)
        imports = []
        for wanted in module.imports:
            short = str(wanted.name)
            if short in HOST:
                imports.append(wasmtime.Func(self._store, wanted.type, host.function(short)))
            else:
                imports.append(shim["clock" if short == CLOCK else INVOKES.get(short) or THROWS[short]])
        exports = wasmtime.Instance(self._store, module, imports).exports(self._store)
        self._exports: dict[str, Any] = {name: exports[short] for name, short in EXPORTS.items()}
        self._memory = self._exports["memory"]
        ticking = wasmtime.Instance(self._store, clock, [self._memory]).exports(self._store)
        self._fill_table(shim["table"], ticking["clock"])
        self.call("initialize")

    def _fill_table(self, target: Any, clock: Any) -> None:
        """Give the trampolines every function that the guest may pass by index, and four that they call."""
        source = self._exports["table"]
        size = source.size(self._store)
        for index in range(size):
            function = source.get(self._store, index)
            if isinstance(function, wasmtime.Func):
                target.set(self._store, index, function)
        own = [self._exports[name] for name in ("stack_current", "stack_restore", "set_threw")]
        for offset, function in enumerate([*own, clock]):
            target.set(self._store, size + offset, function)

    def call(self, name: str, *args: int) -> int:
        result = self._exports[name](self._store, *args)
        return 0 if result is None else int(result) & 0xFFFFFFFF

    def call_with_texts(self, name: str, head: tuple[int, ...], *args: str | int | None) -> int:
        """Call an export whose arguments are C strings (None: a null pointer); free them afterwards."""
        pointers: list[int] = []
        values = list(head)
        for arg in args:
            if isinstance(arg, str):
                text = arg.encode() + b"\0"
                pointers.append(self.call("malloc", len(text)))
                self.write(pointers[-1], text)
                values.append(pointers[-1])
            else:
                values.append(arg or 0)
        result = self.call(name, *values)
        for pointer in pointers:
            self.call("free", pointer)
        return result

    def take_text(self, at: int) -> str:
        """Read a C string that the guest allocated for us, and free it."""
        parts = []
        cursor, end = at, self.memory_bytes()
        while cursor < end:
            part = self.read(cursor, min(65536, end - cursor))
            parts.append(part.split(b"\0", 1)[0])
            if b"\0" in part:
                break
            cursor += len(part)
        self.call("free", at)
        return b"".join(parts).decode()

    def read(self, at: int, size: int) -> bytes:
        return bytes(self._memory.read(self._store, at, at + size))

    def write(self, at: int, data: bytes) -> None:
        self._memory.write(self._store, data, at)

    def memory_bytes(self) -> int:
        return int(self._memory.data_len(self._store))

    def grow(self, pages: int) -> None:
        self._memory.grow(self._store, pages)


@lru_cache(maxsize=1)
def _modules() -> tuple[wasmtime.Engine, wasmtime.Module, wasmtime.Module, wasmtime.Module]:
    """Engine, emulator, trampolines, clock; compiled once per process, and once per user through the cache."""
    options = wasmtime.Config()
    options.wasm_exceptions = True
    engine = wasmtime.Engine(options)
    packed = _vendored(_WASM)
    module = _cached(engine, lambda: wasmtime.Module(engine, lzma.decompress(packed)))
    table = next(e.type for e in module.exports if isinstance(e.type, wasmtime.TableType))
    trampolines = wasmtime.Module(engine, trampolines_wat(table.limits.min))
    return engine, module, trampolines, wasmtime.Module(engine, CLOCK_WAT)


def _cached(engine: wasmtime.Engine, compile_module: Callable[[], wasmtime.Module]) -> wasmtime.Module:
    """Load the compiled module from this user's cache, or compile it and try to leave it there.

    The file holds native code, hence the owner check; its first 32 bytes are the rest's sha256.
    """
    path = cache_path()
    with contextlib.suppress(OSError, wasmtime.WasmtimeError):
        if path.stat().st_uid == os.getuid():
            content = path.read_bytes()
            if hashlib.sha256(content[32:]).digest() == content[:32]:
                return wasmtime.Module.deserialize(engine, content[32:])
    module = compile_module()
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        payload = bytes(module.serialize())
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(payload).digest() + payload)
        Path(file.name).replace(path)
    return module


def cache_path() -> Path:
    """Where this user's compiled emulator is kept; the name changes with the wasm and with wasmtime."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "gpupool-agent" / f"tvm-{_SHA256[_WASM][:16]}-wasmtime-{package_version('wasmtime')}.bin"


def _vendored(name: str) -> bytes:
    path = _VENDOR / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EmulatorUnavailableError(f"{path}: {error.strerror}; reinstall the package") from error
    if hashlib.sha256(content).hexdigest() != _SHA256[name]:
        raise EmulatorUnavailableError(f"{path}: its sha256 is not the expected one; reinstall the package")
    return content


def _base64(cell: Cell) -> str:
    return base64.b64encode(to_boc(cell)).decode()
