"""The health service in a Cocoon guest, as the host sees it: services, the GPUs, the TDX measurements.

Decides what the answers of `cocoon-health` say. The guest is another machine with other rights: its answers are
bounded in bytes and time, and read line by line; a line that is not known is skipped, one that is malformed refuses
the answer. Nothing here is evidence: the text is not signed, and only the doctor and the status show it.

1. Over one stream, each request and each answer is its length (4 bytes, little-endian) and so much text.
2. What the guest cannot tell (no GPU, no TDX, a command that it does not know) is None, never zero.
3. Asking changes nothing in the guest.

Transport: the guest listens on vsock, CID 6 + 10 n for instance n, port 9999. Whoever has another way there (a
stand-in, a test) passes their own `connect`.

Source: `tee/cocoon/health-monitor.cpp`, `health-render.cpp`, `tdx.cpp` in github.com/TelegramMessenger/cocoon (c72715e,
8218436); `td/net/FramedPipe`; `scripts/dist-worker/README.md` (CIDs).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import trio

from agent.errors import InvalidSourceError, SourceUnavailableError

PORT = 9999
ANSWER_BYTES_MAX = 512 * 1024
TIMEOUT_S = 10
"""Of a whole conversation: the guest starts `systemctl` and `nvidia-smi` for it."""

_CID, _CID_STEP = 6, 10
_LINE_CHARS_MAX = 2048
_SERVICES_MAX, _GPUS_MAX = 64, 16
_FAILED = re.compile(r"  - (.+)")
_SERVICE = re.compile(r"  \[([+~-])\] (\S{1,80}): (.+)")
_RESTARTS = re.compile(r"\((\d{1,9}) restarts", re.ASCII)
_GPU = re.compile(r"GPU \d+:")
_MEMORY = re.compile(r"(\d{1,6}\.\d) GB / (\d{1,6}\.\d) GB\b.*", re.ASCII)
_POWER = re.compile(r"(\d{1,6})W / (\d{1,6})W", re.ASCII)
_HASH = re.compile(r"[0-9a-fA-F]+")

Connect: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestService:
    """One systemd unit: `state` as systemd calls it ("active", "failed"), or why it is not known."""

    name: str
    state: str
    is_critical: bool | None
    """None while it is active: the guest does not say then."""
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestGpu:
    """One GPU as the guest's `nvidia-smi` shows it; memory in tenths of a GiB, which is all that is told."""

    model: str
    utilization_percent: int
    memory_used_tenth_gib: int
    memory_total_tenth_gib: int
    temperature_c: int
    power_w: int
    power_limit_w: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestTdx:
    """The guest's own TDX report: 48 bytes per register, 32 of the image's hash."""

    mr_td: bytes
    rtmr: tuple[bytes, bytes, bytes, bytes]
    image_hash: bytes
    is_image_verified: bool | None
    """Whether the image that was started is the one that was measured; None: the guest cannot compare them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestHealth:
    """What the guest said. `gpus` and `tdx` None: it cannot tell."""

    is_ok: bool
    failing: tuple[str, ...]
    """Critical services that do not run, one line each."""
    services: tuple[GuestService, ...]
    build_commit: str | None
    gpus: tuple[GuestGpu, ...] | None
    tdx: GuestTdx | None


def vsock_guest(instance: int) -> Connect:
    """How to reach the guest of worker `instance` (0 ..) over vsock; `SourceUnavailableError` comes when it is used."""

    async def connect() -> trio.abc.Stream:
        sock = trio.socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try:
            await sock.connect((_CID + _CID_STEP * instance, PORT))
        except BaseException:
            sock.close()
            raise
        return trio.SocketStream(sock)

    return connect


async def read_health(connect: Connect) -> GuestHealth:
    """Ask for services, GPUs and TDX, within `TIMEOUT_S`; cancellation closes the stream.

    Raises:
        SourceUnavailableError: the guest is not reached, hangs up, or takes too long.
        InvalidSourceError: an answer is too long, no text, or not what this service says.
    """
    status, gpu, tdx = await _ask(connect, "status", "gpu", "tdx")
    refused = _refusal(status)
    if refused is not None:
        raise InvalidSourceError(f"guest: it refuses to tell its status: {refused}")
    return parse_health(status, gpu, tdx)


def parse_health(status: str, gpu: str, tdx: str) -> GuestHealth:
    """Read the answers to `status`, `gpu` and `tdx`.

    Raises:
        InvalidSourceError: `status` has no verdict, or a known line is malformed.
    """
    build_commit, verdict = None, None
    failing: list[str] = []
    services: list[GuestService] = []
    for line in _lines(status):
        if line.startswith("Build: "):
            build_commit = line.removeprefix("Build: ")
        elif line.startswith("Status: "):
            verdict = line.removeprefix("Status: ")
        elif match := _SERVICE.fullmatch(line):
            services.append(_service(match))
        elif match := _FAILED.fullmatch(line):
            failing.append(match[1])
    if verdict is None or not verdict.startswith(("OK", "ERROR")):
        raise InvalidSourceError("guest: expected its health, got an answer without a verdict")
    if len(services) > _SERVICES_MAX or len(failing) > _SERVICES_MAX:
        raise InvalidSourceError(f"guest: more than {_SERVICES_MAX} services")
    return GuestHealth(
        is_ok=verdict.startswith("OK"),
        failing=tuple(failing),
        services=tuple(services),
        build_commit=build_commit or None,
        gpus=None if _refusal(gpu) is not None else parse_gpus(gpu),
        tdx=None if _refusal(tdx) is not None else parse_tdx(tdx),
    )


def parse_gpus(text: str) -> tuple[GuestGpu, ...] | None:
    """Read the answer to `gpu`; None if `nvidia-smi` does not run there, empty if it shows no GPU.

    Raises:
        InvalidSourceError: a figure of a GPU is missing or malformed.
    """
    if any(line.startswith("Error:") for line in _lines(text)):
        return None
    found: list[dict[str, str]] = []
    for line in _lines(text):
        if _GPU.fullmatch(line):
            found.append({})
        elif found and line.startswith("  "):
            name, _, value = line.strip().partition(":")
            found[-1][name] = value.strip()
    if len(found) > _GPUS_MAX:
        raise InvalidSourceError(f"guest: more than {_GPUS_MAX} GPUs")
    return tuple(_gpu(fields) for fields in found)


def parse_tdx(text: str) -> GuestTdx | None:
    """Read the answer to `tdx`; None if the guest has no TDX report.

    Raises:
        InvalidSourceError: a register is missing or malformed.
    """
    fields: dict[str, str] = {}
    for line in _lines(text):
        name, separator, value = line.strip().partition(": ")
        if separator:
            fields[name] = value
    if "MRTD" not in fields:
        return None
    verified = fields.get("Image hash")
    return GuestTdx(
        mr_td=_register(fields, "MRTD", 48),
        rtmr=(
            _register(fields, "RTMR0", 48),
            _register(fields, "RTMR1", 48),
            _register(fields, "RTMR2", 48),
            _register(fields, "RTMR3", 48),
        ),
        image_hash=_register(fields, "image_hash", 32),
        is_image_verified=None if verified is None else verified.startswith("+"),
    )


async def _ask(connect: Connect, *requests: str) -> list[str]:
    """The answers to `requests`, one after the other over one stream."""
    try:
        with trio.fail_after(TIMEOUT_S):
            async with await connect() as stream:
                return [await _exchange(stream, request) for request in requests]
    except trio.TooSlowError:
        raise SourceUnavailableError(f"guest: no answer within {TIMEOUT_S} s") from None
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise SourceUnavailableError(f"guest: its health service is not reached: {error}") from error


async def _exchange(stream: trio.abc.Stream, request: str) -> str:
    raw = request.encode("ascii")
    await stream.send_all(len(raw).to_bytes(4, "little") + raw)
    length = int.from_bytes(await _receive(stream, 4), "little")
    if length > ANSWER_BYTES_MAX:
        raise InvalidSourceError(
            f"guest: {length} bytes in answer to {request!r}, at most {ANSWER_BYTES_MAX} are taken"
        )
    try:
        return (await _receive(stream, length)).decode()
    except UnicodeDecodeError as error:
        raise InvalidSourceError(f"guest: its answer to {request!r} is no UTF-8 text") from error


async def _receive(stream: trio.abc.Stream, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        chunk = await stream.receive_some(length - len(received))
        if not chunk:
            raise SourceUnavailableError("guest: it hung up in the middle of an answer")
        received += chunk
    return bytes(received)


def _refusal(text: str) -> str | None:
    """Why the guest refuses a command, or None: its message is not escaped, so this is no JSON to be parsed."""
    prefix, suffix = '{"error":"', '"}'
    if text.startswith(prefix) and text.endswith(suffix):
        return text[len(prefix) : -len(suffix)][:200]
    return None


def _lines(text: str) -> Iterator[str]:
    return (line[:_LINE_CHARS_MAX] for line in text.split("\n"))


def _service(match: re.Match[str]) -> GuestService:
    marker, name, state = match.groups()
    restarts = _RESTARTS.search(state)
    return GuestService(
        name=name,
        state=state if state.startswith("ERROR") else state.partition(" ")[0],
        is_critical=None if marker == "+" else marker == "-",
        restarts=0 if restarts is None else int(restarts[1]),
    )


def _gpu(fields: dict[str, str]) -> GuestGpu:
    memory = _MEMORY.fullmatch(fields.get("Memory", ""))
    power = _POWER.fullmatch(fields.get("Power", ""))
    model = fields.get("Model", "")
    if memory is None or power is None or not model:
        raise InvalidSourceError(f"guest: a GPU without model, memory or power: {fields!r:.200}")
    return GuestGpu(
        model=model,
        utilization_percent=_number(fields, "Utilization", "%"),
        memory_used_tenth_gib=int(memory[1].replace(".", "")),
        memory_total_tenth_gib=int(memory[2].replace(".", "")),
        temperature_c=_number(fields, "Temperature", "°C"),
        power_w=int(power[1]),
        power_limit_w=int(power[2]),
    )


def _number(fields: dict[str, str], name: str, unit: str) -> int:
    text = fields.get(name, "").removesuffix(unit)
    if not re.fullmatch(r"-?\d{1,6}", text, re.ASCII):
        raise InvalidSourceError(f"guest: a GPU's {name.lower()} is {fields.get(name)!r:.80}")
    return int(text)


def _register(fields: dict[str, str], name: str, length: int) -> bytes:
    text = fields.get(name, "")
    if len(text) != 2 * length or not _HASH.fullmatch(text):
        raise InvalidSourceError(f"guest: {name}: expected {length} bytes in hexadecimal, got {text!r:.40}")
    return bytes.fromhex(text)
