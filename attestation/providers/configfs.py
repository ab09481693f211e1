"""Quotes of the machine that the agent itself runs in: a TDX guest whose kernel has configfs-tsm (Linux 6.7).

What the kernel answers is bounded and otherwise taken as it is: peers, and the agent before it publishes,
verify the quote.

Rules
1. Each request is a folder of its own, with a name that nobody else picks, and is removed whatever happens.
2. Exactly one write, ours, lies between the two readings of `generation`; otherwise the request starts over.
   It also tells a write that was not taken: the kernel commits `inblob` on close and drops that error.
3. `provider` is "tdx_guest"; the quote is not empty and has at most 16 KiB.
4. What may pass (busy, interrupted, moved) is tried again, at most `len(PAUSES_S)` times.
5. One request at a time in this process, wholly in a worker thread: it is never left half-way.

Source: Linux, Documentation/ABI/testing/configfs-tsm-report, drivers/virt/coco/guest/report.c (generation,
ENXIO without a driver), drivers/virt/coco/tdx-guest/tdx-guest.c (EBUSY while a request is in flight, 64 bytes
of report data), fs/configfs/file.c (binary attributes are written on close).
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from attestation.errors import (
    AttestationError,
    EvidenceMalformedError,
    TsmAccessError,
    TsmAnswerError,
    TsmBusyError,
    TsmMissingError,
    TsmProviderError,
    TsmRaceError,
    TsmRefusedError,
)
from attestation.types import QUOTE_BYTES_MAX, ProvidedQuote

REPORTS = Path("/sys/kernel/config/tsm/report")
PROVIDER = b"tdx_guest"
CHALLENGE_BYTES = 64
PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Between the tries; the kernel itself waits for the host's quoting service for up to 30 s in each."""

_TEXT_BYTES_MAX = 64
_NO_REPORTS = "is no configfs-tsm folder"
_GENERATIONS = 1 << 64
_PRIVATE = re.compile("/gpupool-[0-9]+-[0-9a-f]{16}")

_lock = trio.Lock()


class TsmFiles(Protocol):
    """The file operations on the kernel's report folder. Each blocks, and raises `OSError` as the kernel does."""

    def make(self, request: str) -> None:
        """Make the folder `request`; the kernel fills it with attributes."""
        ...

    def read(self, request: str, attribute: str, limit: int) -> bytes:
        """Return the attribute's bytes, at most `limit` of them."""
        ...

    def write(self, request: str, attribute: str, data: bytes) -> None:
        """Write `data` in one piece."""
        ...

    def remove(self, request: str) -> None:
        """Remove the folder with its attributes."""
        ...


@dataclass(frozen=True, slots=True)
class KernelFiles:
    """`TsmFiles` below `root`, which is configfs."""

    root: Path = REPORTS

    def make(self, request: str) -> None:
        try:
            (self.root / request).mkdir()
        except FileNotFoundError as error:
            raise FileNotFoundError(error.errno, "does not exist", str(self.root)) from error
        except NotADirectoryError as error:
            raise NotADirectoryError(error.errno, _NO_REPORTS, str(self.root)) from error

    def read(self, request: str, attribute: str, limit: int) -> bytes:
        try:
            with (self.root / request / attribute).open("rb") as file:
                return file.read(limit)
        except FileNotFoundError as error:
            raise FileNotFoundError(error.errno, _NO_REPORTS, str(self.root)) from error

    def write(self, request: str, attribute: str, data: bytes) -> None:
        # Neither created nor truncated: an attribute is there, or it is an error.
        descriptor = os.open(self.root / request / attribute, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.EIO, os.strerror(errno.EIO), attribute)
        finally:
            os.close(descriptor)

    def remove(self, request: str) -> None:
        (self.root / request).rmdir()


class ConfigfsTsm:
    """The `QuoteProvider` of an agent inside a TDX guest: the quote's report data is the challenge itself."""

    def __init__(self, files: TsmFiles | None = None) -> None:
        self._files = files or KernelFiles()

    async def quote(self, challenge: bytes) -> ProvidedQuote:
        """Have the kernel make a quote over `challenge` (64 bytes).

        Cancellation waits for the request that is under way (the kernel may take 30 s), removes it and
        leaves nothing behind.

        Raises:
            ConfigurationError: no report interface, no access to it, another TEE, or it does not take 64 bytes.
            ServiceError: busy for too long, or no usable answer; it may work later.
        """
        if len(challenge) != CHALLENGE_BYTES:
            raise EvidenceMalformedError(f"challenge: {len(challenge)} bytes, expected {CHALLENGE_BYTES}")
        async with _lock:
            for pause_s in PAUSES_S:
                try:
                    return await self._request(challenge)
                except TsmBusyError:
                    await trio.sleep(pause_s)
            return await self._request(challenge)

    async def _request(self, challenge: bytes) -> ProvidedQuote:
        return ProvidedQuote(quote=await trio.to_thread.run_sync(request_quote, self._files, challenge))


def request_quote(files: TsmFiles, challenge: bytes) -> bytes:
    """Make one request (rules 1 to 3) and return the quote; blocks for as long as the kernel does.

    Raises:
        ConfigurationError, ServiceError: see `ConfigfsTsm.quote`; `TsmBusyError` is worth another try.
    """
    request = f"gpupool-{os.getpid()}-{secrets.token_hex(8)}"
    try:
        files.make(request)
        try:
            return _quote(files, request, challenge)
        finally:
            files.remove(request)
    except OSError as error:
        raise _fault(error) from error


def _quote(files: TsmFiles, request: str, challenge: bytes) -> bytes:
    provider = files.read(request, "provider", _TEXT_BYTES_MAX).strip()
    if provider != PROVIDER:
        raise TsmProviderError(f"configfs-tsm: provider {provider!r}, expected {PROVIDER!r}")
    before = _generation(files, request)
    files.write(request, "inblob", challenge)
    quote = files.read(request, "outblob", QUOTE_BYTES_MAX + 1)
    after = _generation(files, request)
    if after != (before + 1) % _GENERATIONS:
        raise TsmRaceError(f"configfs-tsm: generation {before} became {after}, expected one more")
    if not 0 < len(quote) <= QUOTE_BYTES_MAX:
        size = f"more than {QUOTE_BYTES_MAX} bytes" if quote else "nothing"
        raise TsmAnswerError(f"configfs-tsm: the quote is {size}")
    return quote


def _generation(files: TsmFiles, request: str) -> int:
    text = files.read(request, "generation", _TEXT_BYTES_MAX).strip()
    if not text.isdigit() or int(text) >= _GENERATIONS:
        raise TsmAnswerError(f"configfs-tsm: generation {text!r} is not a number")
    return int(text)


_FAULTS: dict[int, type[AttestationError]] = {
    errno.ENOENT: TsmMissingError,
    errno.ENOTDIR: TsmMissingError,
    errno.ENXIO: TsmMissingError,
    errno.ENODEV: TsmMissingError,
    errno.EACCES: TsmAccessError,
    errno.EPERM: TsmAccessError,
    errno.EROFS: TsmAccessError,
    errno.EINVAL: TsmRefusedError,
    errno.EBUSY: TsmBusyError,
    errno.EINTR: TsmBusyError,
    errno.EAGAIN: TsmBusyError,
    errno.ETIMEDOUT: TsmBusyError,
    errno.EEXIST: TsmBusyError,
}


def _fault(error: OSError) -> AttestationError:
    kind = _FAULTS.get(error.errno or 0, TsmAnswerError)
    # A request's folder has a name that tells nobody anything; what is asked of it does.
    place = "" if error.filename is None else f"{_PRIVATE.sub('', str(error.filename))} "
    return kind(f"configfs-tsm: {place}{error.strerror}")
