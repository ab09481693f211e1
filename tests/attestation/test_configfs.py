"""Quotes from configfs-tsm: against a kernel that is played, and the real file operations on a folder."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from attestation.errors import (
    ConfigurationError,
    EvidenceMalformedError,
    ServiceError,
    TsmAccessError,
    TsmAnswerError,
    TsmBusyError,
    TsmMissingError,
    TsmProviderError,
    TsmRaceError,
    TsmRefusedError,
)
from attestation.providers import configfs
from attestation.providers.configfs import PAUSES_S, ConfigfsTsm, KernelFiles, request_quote
from attestation.types import QUOTE_BYTES_MAX, ProvidedQuote

CHALLENGE = bytes(range(64))
TRIES = len(PAUSES_S) + 1

Fault = Callable[[], None]


def fails(code: int) -> Fault:
    def fault() -> None:
        raise OSError(code, os.strerror(code))

    return fault


class Kernel:
    """The report folder as the kernel plays it: an answer made from `inblob`, and a generation that counts writes.

    `faults` are what happens instead or besides, by operation ("make", "read outblob" and so on), one per use.
    """

    def __init__(self, **faults: list[Fault]) -> None:
        self.requests: dict[str, dict[str, bytes]] = {}
        self.generation = 0
        self.provider = b"tdx_guest\n"
        self.answer: Callable[[bytes], bytes] = lambda inblob: b"quote over " + inblob
        self.made: list[str] = []
        self.faults = {name.replace("_", " "): list(fault) for name, fault in faults.items()}

    def make(self, request: str) -> None:
        self._happen("make")
        self.requests[request] = {}
        self.made.append(request)
        self.generation = 0

    def read(self, request: str, attribute: str, limit: int) -> bytes:
        self._happen(f"read {attribute}")
        attributes = self.requests[request]
        if attribute == "outblob":
            if "inblob" not in attributes:
                fails(errno.EINVAL)()
            return self.answer(attributes["inblob"])[:limit]
        return {"provider": self.provider, "generation": b"%d\n" % self.generation}[attribute][:limit]

    def write(self, request: str, attribute: str, data: bytes) -> None:
        self._happen(f"write {attribute}")
        self.requests[request][attribute] = data
        self.generation += 1

    def remove(self, request: str) -> None:
        self._happen("remove")
        del self.requests[request]

    def _happen(self, operation: str) -> None:
        if self.faults.get(operation):
            self.faults[operation].pop(0)()

    def bump(self) -> None:
        """Somebody else writes."""
        self.generation += 1


async def test_the_kernel_answers(autojump_clock: trio.testing.MockClock) -> None:
    kernel = Kernel()
    assert await ConfigfsTsm(kernel).quote(CHALLENGE) == ProvidedQuote(quote=b"quote over " + CHALLENGE)
    assert kernel.requests == {}
    assert trio.current_time() == 0


async def test_each_request_has_a_name_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    kernel = Kernel(read_outblob=[fails(errno.EBUSY)])
    await ConfigfsTsm(kernel).quote(CHALLENGE)
    assert len(set(kernel.made)) == len(kernel.made) == 2
    assert all(f"-{os.getpid()}-" in name for name in kernel.made)


@pytest.mark.parametrize("operation", ["make", "read_provider", "write_inblob", "read_outblob", "read_generation"])
@pytest.mark.parametrize("code", [errno.EBUSY, errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT])
async def test_what_passes_is_tried_again(autojump_clock: trio.testing.MockClock, operation: str, code: int) -> None:
    kernel = Kernel(**{operation: [fails(code)] * (TRIES - 1)})
    assert (await ConfigfsTsm(kernel).quote(CHALLENGE)).quote == b"quote over " + CHALLENGE
    assert trio.current_time() == sum(PAUSES_S)
    assert kernel.requests == {}


async def test_busy_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    kernel = Kernel(read_outblob=[fails(errno.EBUSY)] * 100)
    with pytest.raises(TsmBusyError, match="busy"):
        await ConfigfsTsm(kernel).quote(CHALLENGE)
    assert len(kernel.made) == TRIES
    assert kernel.requests == {}


async def test_somebody_else_writes_once(autojump_clock: trio.testing.MockClock) -> None:
    kernel = Kernel()
    kernel.faults["read outblob"] = [kernel.bump]
    await ConfigfsTsm(kernel).quote(CHALLENGE)
    assert len(kernel.made) == 2


async def test_somebody_else_writes_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    kernel = Kernel()
    kernel.faults["write inblob"] = [kernel.bump] * 100
    with pytest.raises(TsmRaceError, match="generation 0 became 2"):
        await ConfigfsTsm(kernel).quote(CHALLENGE)
    assert len(kernel.made) == TRIES
    assert kernel.requests == {}


async def test_a_write_that_is_not_taken(autojump_clock: trio.testing.MockClock) -> None:
    """The kernel drops the error of a commit on close; an old answer must not pass for ours."""

    class Forgetful(Kernel):
        def write(self, request: str, attribute: str, data: bytes) -> None:
            self.requests[request][attribute] = b"another's"

    with pytest.raises(TsmRaceError, match="generation 0 became 0"):
        await ConfigfsTsm(Forgetful()).quote(CHALLENGE)


def test_the_generation_may_wrap() -> None:
    class Worn(Kernel):
        def make(self, request: str) -> None:
            super().make(request)
            self.generation = (1 << 64) - 1

        def write(self, request: str, attribute: str, data: bytes) -> None:
            super().write(request, attribute, data)
            self.generation %= 1 << 64

    assert request_quote(Worn(), CHALLENGE) == b"quote over " + CHALLENGE


@pytest.mark.parametrize(
    ("operation", "code", "error"),
    [
        ("make", errno.ENOENT, TsmMissingError),
        ("make", errno.ENXIO, TsmMissingError),
        ("make", errno.ENOTDIR, TsmMissingError),
        ("read_provider", errno.ENODEV, TsmMissingError),
        ("read_outblob", errno.ENXIO, TsmMissingError),
        ("make", errno.EACCES, TsmAccessError),
        ("make", errno.EPERM, TsmAccessError),
        ("make", errno.EROFS, TsmAccessError),
        ("write_inblob", errno.EACCES, TsmAccessError),
        ("write_inblob", errno.EINVAL, TsmRefusedError),
        ("read_outblob", errno.EINVAL, TsmRefusedError),
        ("read_outblob", errno.EFBIG, TsmAnswerError),
        ("read_outblob", errno.EIO, TsmAnswerError),
        ("make", errno.ENOMEM, TsmAnswerError),
        ("remove", errno.EIO, TsmAnswerError),
    ],
)
async def test_what_lasts_is_told_at_once(operation: str, code: int, error: type[Exception]) -> None:
    kernel = Kernel(**{operation: [fails(code)]})
    with pytest.raises(error, match=os.strerror(code)) as caught:
        await ConfigfsTsm(kernel).quote(CHALLENGE)
    assert len(kernel.made) == (operation != "make")
    assert isinstance(caught.value.__cause__, OSError)
    assert isinstance(caught.value, ConfigurationError | ServiceError)
    assert operation == "remove" or kernel.requests == {}


@pytest.mark.parametrize("provider", [b"sev_guest\n", b"", b"tdx_guest2", b"\xff" * 64])
async def test_another_tee(provider: bytes) -> None:
    kernel = Kernel()
    kernel.provider = provider
    with pytest.raises(TsmProviderError):
        await ConfigfsTsm(kernel).quote(CHALLENGE)
    assert kernel.requests == {}


@pytest.mark.parametrize("size", [0, QUOTE_BYTES_MAX + 1, QUOTE_BYTES_MAX * 4])
async def test_a_quote_of_no_possible_size(size: int) -> None:
    kernel = Kernel()
    kernel.answer = lambda inblob: bytes(size)
    with pytest.raises(TsmAnswerError):
        await ConfigfsTsm(kernel).quote(CHALLENGE)
    assert kernel.requests == {}


async def test_the_longest_quote() -> None:
    kernel = Kernel()
    kernel.answer = lambda inblob: bytes(QUOTE_BYTES_MAX)
    assert len((await ConfigfsTsm(kernel).quote(CHALLENGE)).quote) == QUOTE_BYTES_MAX


@pytest.mark.parametrize("text", [b"", b"-1", b"x", b"1 2", "٣".encode(), b"18446744073709551616", b"9" * 64])
def test_a_generation_that_is_no_number(text: bytes) -> None:
    class Odd(Kernel):
        def read(self, request: str, attribute: str, limit: int) -> bytes:
            return text if attribute == "generation" else super().read(request, attribute, limit)

    with pytest.raises(TsmAnswerError):
        request_quote(Odd(), CHALLENGE)


@pytest.mark.parametrize("length", [0, 63, 65])
async def test_a_challenge_of_another_length(length: int) -> None:
    with pytest.raises(EvidenceMalformedError):
        await ConfigfsTsm(Kernel()).quote(bytes(length))


class SlowKernel(Kernel):
    """Says that it was asked for a quote, and answers when told to; counts how many it is asked for at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = trio.Event()
        self.go = threading.Event()
        self.at_once_max = 0

    def read(self, request: str, attribute: str, limit: int) -> bytes:
        if attribute == "outblob":
            self.at_once_max = max(self.at_once_max, len(self.requests))
            trio.from_thread.run_sync(self.asked.set)
            self.go.wait()
        return super().read(request, attribute, limit)


async def test_cancellation_removes_the_request() -> None:
    kernel = SlowKernel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ConfigfsTsm(kernel).quote, CHALLENGE)
        await kernel.asked.wait()
        nursery.cancel_scope.cancel()
        kernel.go.set()
    assert len(kernel.made) == 1
    assert kernel.requests == {}
    assert (await ConfigfsTsm(kernel).quote(CHALLENGE)).quote == b"quote over " + CHALLENGE


async def test_two_at_once_take_turns() -> None:
    kernel = SlowKernel()
    quotes = {}

    async def ask(challenge: bytes) -> None:
        quotes[challenge] = (await ConfigfsTsm(kernel).quote(challenge)).quote

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, CHALLENGE)
        nursery.start_soon(ask, CHALLENGE[::-1])
        await kernel.asked.wait()
        await trio.testing.wait_all_tasks_blocked()
        kernel.go.set()
    assert quotes == {challenge: b"quote over " + challenge for challenge in (CHALLENGE, CHALLENGE[::-1])}
    assert kernel.at_once_max == 1


# The real file operations.


class FolderKernel(KernelFiles):
    """A plain folder that behaves as configfs where it must: attributes come and go with their folder."""

    def make(self, request: str) -> None:
        super().make(request)
        for name, content in {"provider": b"tdx_guest\n", "generation": b"0\n", "inblob": b"", "outblob": b""}.items():
            (self.root / request / name).write_bytes(content)

    def write(self, request: str, attribute: str, data: bytes) -> None:
        super().write(request, attribute, data)
        assert (self.root / request / attribute).read_bytes() == data
        (self.root / request / "outblob").write_bytes(b"quote over " + data)
        (self.root / request / "generation").write_bytes(b"1\n")

    def remove(self, request: str) -> None:
        for path in (self.root / request).iterdir():
            path.unlink()
        super().remove(request)


def entries(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_the_real_file_operations(tmp_path: Path) -> None:
    provided = await ConfigfsTsm(FolderKernel(tmp_path)).quote(CHALLENGE)
    assert provided.quote == b"quote over " + CHALLENGE
    assert entries(tmp_path) == []


async def test_the_kernels_folder_is_what_is_used_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configfs, "KernelFiles", Kernel)
    assert (await ConfigfsTsm().quote(CHALLENGE)).quote == b"quote over " + CHALLENGE
    assert KernelFiles().root == Path("/sys/kernel/config/tsm/report")


def test_no_file_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        request_quote(FolderKernel(tmp_path), CHALLENGE)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_request_that_is_written_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, data: len(data) - 1)
    with pytest.raises(TsmAnswerError, match="inblob"):
        request_quote(FolderKernel(tmp_path), CHALLENGE)


def test_reading_is_bounded_and_writing_makes_nothing(tmp_path: Path) -> None:
    files = KernelFiles(tmp_path)
    files.make("request")
    (tmp_path / "request" / "outblob").write_bytes(bytes(100_000))
    assert len(files.read("request", "outblob", 70_000)) == 70_000
    with pytest.raises(FileNotFoundError):
        files.write("request", "inblob", b"data")
    with pytest.raises(FileExistsError):
        files.make("request")


async def test_no_configfs_here(tmp_path: Path) -> None:
    with pytest.raises(TsmMissingError) as caught:
        await ConfigfsTsm(KernelFiles(tmp_path / "tsm" / "report")).quote(CHALLENGE)
    assert str(caught.value) == f"configfs-tsm: {tmp_path / 'tsm' / 'report'} does not exist"
    assert "modprobe tdx_guest" in caught.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TsmAccessError):
        request_quote(KernelFiles(tmp_path), CHALLENGE)


@pytest.mark.parametrize("is_file", [False, True])
async def test_a_folder_of_something_else(tmp_path: Path, is_file: bool) -> None:
    """What is told is the folder, not the name of a request that is gone."""
    place = tmp_path / "file" if is_file else tmp_path
    if is_file:
        place.touch()
    with pytest.raises(TsmMissingError) as caught:
        await ConfigfsTsm(KernelFiles(place)).quote(CHALLENGE)
    assert str(caught.value) == f"configfs-tsm: {place} is no configfs-tsm folder"
    assert is_file or entries(tmp_path) == []
