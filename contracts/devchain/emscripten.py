"""What emscripten's JavaScript would give the emulator's wasm: imports, C++ exceptions, trampolines.

The wasm was built with emscripten's JavaScript exceptions: a C++ `try` calls an `invoke_*` import
with a table index, `throw` calls `___cxa_throw`, and the landing pad asks
`___cxa_find_matching_catch_*` which handler fits. Here the `invoke_*` imports are a generated wasm
module that uses wasm exceptions, so nothing crosses into Python unless something is really thrown.

This module knows no wasm engine: memory and exports come in through the `Guest` protocol.

Untrusted input: none directly. What runs in the guest may be hostile contract code, so the host
functions here give it no file, no environment, no network, and a clock that only counts.

Source: emscripten's `libexceptions.js` (semantics, not code) and the Itanium C++ ABI's exception header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

_INVOKES = """
F:di R:diii S:fiii x:i f:ii b:iii j:iiii i:iiiii ea:iiiiid l:iiiiii q:iiiiiii n:iiiiiiii Ba:iiiiiiiii
aa:iiiiiiiiii ca:iiiiiiiiiii N:iiiiiiiiiiii wa:iiiiij $:iiiiijj y:iiiij Ca:iiiijii I:iiij t:iij p:iiji
xa:iijj H:j E:ji s:jii _:jiii T:jiiii ba:jijj o:v c:vi g:vii e:viii m:viiii B:viiiii A:viiiiii G:viiiiiii
J:viiiiiiiiii L:viiiiiiiiiiiiiii ya:viiiijiiiiiiiiiiiij Aa:viiijjj z:viij za:viijjj r:vij C:viji
"""

_HOST = """
u:cxa_begin_catch v:cxa_end_catch a:cxa_find_matching_catch h:cxa_find_matching_catch
K:cxa_find_matching_catch Q:cxa_find_matching_catch D:cxa_uncaught_exceptions w:eh_typeid_for
X:nothing sa:fstat ha:no_file O:nothing pa:no_file qa:no_file W:openat ra:no_file va:abort ta:ignore
ja:gmtime ka:gmtime ia:nothing la:ignore P:nothing Y:date_now ga:heap_max fa:resize_heap na:nothing
oa:environ_sizes M:nothing U:fd_read ma:no_file V:fd_write da:random_get
"""


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


INVOKES = _pairs(_INVOKES)
"""Short import name of each `invoke_*` in the vendored wasm -> its signature (result first)."""

HOST = _pairs(_HOST)
"""Short import name -> the method of `HostFunctions` (`import_<name>`) that stands behind it."""

CLOCK = "ua"
"""Import of the clock. The guest reads it some 200 times per transaction, so it stays in wasm."""

THROWS = {"k": "throw", "Z": "rethrow", "d": "resume"}
"""Imports that end in a wasm exception; the generated module has them, after a call to the host."""

EXPORTS = {
    "memory": "Da",
    "table": "Ma",
    "initialize": "Ea",
    "create_emulator": "Fa",
    "emulate": "Ha",
    "free": "Ia",
    "run_get_method": "Ka",
    "version": "La",
    "malloc": "Na",
    "set_threw": "Pa",
    "set_tempret": "Qa",
    "stack_restore": "Ra",
    "stack_current": "Ta",
    "exception_release": "Ua",
    "exception_retain": "Va",
    "can_catch": "Wa",
    "exception_pointer": "Xa",
}

_HEAP_BYTES_MAX = 2**31 - 65536
_PAGE_BYTES = 65536
_ENOENT = -44
_RANDOM_FD = 10
_EXCEPTION_HEADER_BYTES = 24
_WASM_TYPES = {"i": "i32", "j": "i64", "f": "f32", "d": "f64"}


class Guest(Protocol):
    """The running wasm instance, as far as the host functions need it."""

    def read(self, at: int, size: int) -> bytes: ...

    def write(self, at: int, data: bytes) -> None: ...

    def memory_bytes(self) -> int: ...

    def grow(self, pages: int) -> None: ...

    def call(self, name: str, *args: int) -> int: ...


class GuestAbortError(Exception):
    """The guest called abort(), or an import that it must not need."""


def trampolines_wat(table_size: int) -> str:
    """Text of the wasm module that stands behind the `invoke_*` and throwing imports.

    Its table holds the guest's functions at their own indexes, then stack_current, stack_restore,
    set_threw and the clock (`CLOCK_WAT`). It imports `throw`, `rethrow` and `resume` from the host, in that order.
    """
    get, restore, threw, clock = (f"(i32.const {table_size + k})" for k in range(4))
    lines = [
        '(module (import "h" "throw" (func $throw (param i32 i32 i32)))',
        '(import "h" "rethrow" (func $rethrow)) (import "h" "resume" (func $resume (param i32)))',
        f'(tag $cpp) (table $t (export "table") {table_size + 4} funcref)',
        "(type $get (func (result i32))) (type $one (func (param i32))) (type $two (func (param i32 i32)))",
        "(type $clock (func (param i32 i64 i32) (result i32)))",
        '(func (export "clock") (param i32 i64 i32) (result i32)',
        f" (call_indirect $t (type $clock) (local.get 0) (local.get 1) (local.get 2) {clock}))",
        '(func (export "throw") (param i32 i32 i32)',
        " (call $throw (local.get 0) (local.get 1) (local.get 2)) (throw $cpp))",
        '(func (export "rethrow") (call $rethrow) (throw $cpp))',
        '(func (export "resume") (param i32) (call $resume (local.get 0)) (throw $cpp))',
    ]
    for signature in sorted(INVOKES.values()):
        result = _WASM_TYPES.get(signature[0])
        params = "".join(f" (param {_WASM_TYPES[c]})" for c in signature[1:])
        returns = f" (result {result})" if result else ""
        args = " ".join(f"(local.get {i})" for i in range(1, len(signature)))
        lines += [
            f"(type $t_{signature} (func{params}{returns}))",
            f'(func (export "{signature}") (param i32){params}{returns} (local $sp i32)',
            f" (local.set $sp (call_indirect $t (type $get) {get}))",
            " (block $caught (try_table (catch $cpp $caught)",
            f"  (return (call_indirect $t (type $t_{signature}) {args} (local.get 0)))))",
            f" (call_indirect $t (type $one) (local.get $sp) {restore})",
            f" (call_indirect $t (type $two) (i32.const 1) (i32.const 0) {threw})",
            f" ({result}.const 0))" if result else ")",
        ]
    return "\n".join(lines) + ")"


CLOCK_WAT = """(module (import "guest" "memory" (memory 0)) (global $now (mut i64) (i64.const 0))
(func (export "clock") (param i32 i64 i32) (result i32)
 (global.set $now (i64.add (global.get $now) (i64.const 1000)))
 (i64.store (local.get 2) (global.get $now)) (i32.const 0)))"""
"""A clock that only counts: a microsecond for each look at it."""


class HostFunctions:
    """The host's side of the imports for one guest instance, with its exception state."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._thrown = 0
        self._caught: list[int] = []
        self._uncaught = 0
        self._random_calls = 0

    def function(self, short_name: str) -> Callable[..., int | float | None]:
        """The Python function behind the import `short_name`."""
        name = HOST.get(short_name) or THROWS[short_name]
        found: Callable[..., int | float | None] = getattr(self, f"import_{name}")
        return found

    # C++ exceptions. The header stands before the object: type at -20, destructor at -16,
    # caught at -12, rethrown at -11, adjusted pointer at -8.

    def import_throw(self, thrown: int, type_info: int, destructor: int) -> None:
        thrown = _unsigned(thrown)
        header = thrown - _EXCEPTION_HEADER_BYTES
        self._store(header + 16, 0)
        self._store(header + 4, type_info)
        self._store(header + 8, destructor)
        self._thrown = thrown
        self._uncaught += 1

    def import_rethrow(self) -> None:
        thrown = self._caught.pop()
        flags = thrown - _EXCEPTION_HEADER_BYTES + 12
        if not self._guest.read(flags + 1, 1)[0]:
            self._caught.append(thrown)
            self._guest.write(flags, b"\x00\x01")
            self._uncaught += 1
        self._thrown = thrown

    def import_resume(self, thrown: int) -> None:
        self._thrown = self._thrown or _unsigned(thrown)

    def import_cxa_find_matching_catch(self, *handlers: int) -> int:
        thrown = self._thrown
        type_info = self._load(thrown - 20) if thrown else 0
        matched = type_info
        if thrown:
            self._store(thrown - 8, thrown)
        if type_info:
            for handler in map(_unsigned, handlers):
                if handler in (0, type_info):
                    break
                if self._guest.call("can_catch", handler, type_info, thrown - 8):
                    matched = handler
                    break
        self._guest.call("set_tempret", matched)
        return thrown

    def import_cxa_begin_catch(self, thrown: int) -> int:
        thrown = _unsigned(thrown)
        flags = thrown - _EXCEPTION_HEADER_BYTES + 12
        if not self._guest.read(flags, 1)[0]:
            self._uncaught -= 1
        self._guest.write(flags, b"\x01\x00")
        self._caught.append(thrown)
        self._guest.call("exception_retain", thrown)
        return self._guest.call("exception_pointer", thrown)

    def import_cxa_end_catch(self) -> None:
        self._guest.call("set_threw", 0, 0)
        self._guest.call("exception_release", self._caught.pop())
        self._thrown = 0

    def import_cxa_uncaught_exceptions(self) -> int:
        return self._uncaught

    def import_eh_typeid_for(self, type_info: int) -> int:
        return type_info

    # The operating system, as little of it as the guest can live with.

    def import_nothing(self, *_args: int) -> int:
        return 0

    def import_ignore(self, *_args: int) -> None:
        return None

    def import_no_file(self, *_args: int) -> int:
        return _ENOENT

    def import_abort(self, *_args: int) -> None:
        raise GuestAbortError("the emulator called abort()")

    def import_openat(self, _dir: int, path: int, _flags: int, _varargs: int) -> int:
        name = self._guest.read(_unsigned(path), 16).split(b"\0")[0]
        return _RANDOM_FD if name in (b"/dev/urandom", b"/dev/random") else _ENOENT

    def import_fstat(self, _fd: int, at: int) -> int:
        self._guest.write(_unsigned(at), bytes(96))
        return 0

    def import_fd_read(self, _fd: int, vectors: int, count: int, total_at: int) -> int:
        total = 0
        for k in range(count):
            at = self._load(_unsigned(vectors) + 8 * k)
            size = self._load(_unsigned(vectors) + 8 * k + 4)
            self.import_random_get(at, size)
            total += size
        self._store(_unsigned(total_at), total)
        return 0

    def import_fd_write(self, _fd: int, vectors: int, count: int, total_at: int) -> int:
        sizes = [self._load(_unsigned(vectors) + 8 * k + 4) for k in range(count)]
        self._store(_unsigned(total_at), sum(sizes))
        return 0

    def import_random_get(self, at: int, size: int) -> int:
        """Fixed bytes: the same messages give the same chain; nothing secret is ever made in here."""
        self._random_calls += 1
        seed = b"devchain" + self._random_calls.to_bytes(8, "big")
        self._guest.write(_unsigned(at), hashlib.shake_128(seed).digest(size))
        return 0

    def import_environ_sizes(self, count_at: int, size_at: int) -> int:
        self._store(_unsigned(count_at), 0)
        self._store(_unsigned(size_at), 0)
        return 0

    def import_date_now(self) -> float:
        return 0.0

    def import_gmtime(self, _time: int, at: int) -> None:
        """1970-01-01: only log lines show it, and they are dropped."""
        self._guest.write(_unsigned(at), bytes(12) + (1).to_bytes(4, "little") + bytes(28))

    def import_heap_max(self) -> int:
        return _HEAP_BYTES_MAX

    def import_resize_heap(self, wanted: int) -> int:
        wanted, have = _unsigned(wanted), self._guest.memory_bytes()
        if wanted > _HEAP_BYTES_MAX:
            return 0
        self._guest.grow(-(-(max(wanted, have * 6 // 5) - have) // _PAGE_BYTES))
        return 1

    def _load(self, at: int) -> int:
        return int.from_bytes(self._guest.read(at, 4), "little")

    def _store(self, at: int, value: int) -> None:
        self._guest.write(at, _unsigned(value).to_bytes(4, "little"))


def _unsigned(value: int) -> int:
    return value & 0xFFFFFFFF
