"""The registry of each open epoch: read once, when the epoch is seen open, and kept until it has settled.

An epoch's registry is the one that stood when it was finalized, and liteservers forget old states within hours. So
that an epoch which stalls for weeks can still settle, every agent keeps what it read (proven) on its own disk.

1. It is the registry at the first masterchain block that is not older than the epoch's finalization: every operator
   reads the same.
2. A file is its content's SHA-256 and the registry's storage as a BoC. One that does not match is as if it were
   not there, with a warning, and is read anew from the chain.
3. What belongs to no open epoch is removed.
4. Reading one takes `FETCH_S` at most, then it counts as a chain that does not answer: whoever follows the chain waits
   for it, and servers that answer slowly must not look like an agent that hangs (`agent.health`).

Source: PROTOCOL, "Words" (threshold paragraph: its registry is the one when E is finalized), "Epoch close".
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import trio
from pytoniq_core import Cell

from agent.files import write_durably
from contracts import layout
from contracts.chain import Chain
from contracts.errors import ChainUnavailableError, ContractsError
from contracts.model import OpenEpoch, Participant
from contracts.reader import PoolReader

FILE_BYTES_MAX = 32 * 1024 * 1024
KEEP_INTERVAL_S = 5.0
RETRY_S = 60.0
FETCH_S = 90.0
_DIGEST_BYTES = 32
_OWN_FILE = re.compile(r"[0-9]+-[0-9]+\.boc(\.new)?")

log = logging.getLogger(__name__)


class Registries:
    """The registries of one pool's open epochs, in `folder` (made when first needed)."""

    def __init__(self, folder: Path, chain: Chain, reader: PoolReader) -> None:
        self._folder = folder
        self._chain = chain
        self._reader = reader
        self._kept: frozenset[Path] = frozenset()
        self._failed: dict[Path, tuple[float, ContractsError]] = {}
        """Until when not to ask the chain again, and what it said."""

    async def run(self, open_epochs: Callable[[], Collection[OpenEpoch]]) -> None:
        """Keep the registries of the epochs that are open, for ever; beside whatever waits for the chain."""
        while True:
            await self.keep(open_epochs())
            await trio.sleep(KEEP_INTERVAL_S)

    async def keep(self, open_epochs: Collection[OpenEpoch]) -> None:
        """Read and keep the registries of these epochs, oldest first, and forget all others. What fails is left."""
        wanted = {self._file(epoch): epoch for epoch in sorted(open_epochs, key=lambda open_: open_.epoch)}
        if wanted.keys() == self._kept:
            return
        await trio.to_thread.run_sync(self._forget_all_but, frozenset(wanted))
        self._failed = {file: failure for file, failure in self._failed.items() if file in wanted}
        for file, epoch in wanted.items():
            if file in self._kept:
                continue
            with suppress(ContractsError):  # it is an obstacle, and said, once this epoch is the oldest open one
                await self.of(epoch)
        self._kept = await trio.to_thread.run_sync(lambda: frozenset(file for file in wanted if file.exists()))

    async def of(self, epoch: OpenEpoch) -> tuple[Participant, ...]:
        """The participants whose work this epoch counts, ascending by account.

        Raises:
            ContractsError: it is not kept here, and the chain does not answer, or serves a state so old no more;
                for `RETRY_S` the same again, without asking.
        """
        file = self._file(epoch)
        data = await trio.to_thread.run_sync(_read, file)
        if data is None:
            data = await self._fetch(file, epoch)
        return (await trio.to_thread.run_sync(layout.read_registry, data)).participants

    async def _fetch(self, file: Path, epoch: OpenEpoch) -> Cell:
        if (failed := self._failed.get(file)) is not None and trio.current_time() < failed[0]:
            raise failed[1]
        try:
            with trio.fail_after(FETCH_S):
                data = await self._reader.registry_data(await self._chain.block_at(epoch.finalized_s))
        except trio.TooSlowError:
            error = ChainUnavailableError(f"it was not read within {FETCH_S:.0f} s")
            self._failed[file] = trio.current_time() + RETRY_S, error
            raise error from None
        except ContractsError as error:
            self._failed[file] = trio.current_time() + RETRY_S, error
            raise
        try:
            await trio.to_thread.run_sync(_write, file, data)
        except OSError as error:
            # It is here now; what would be lost is the way to it after hours and a restart.
            log.warning("%s: cannot be written, the registry of epoch %d is not kept: %s", file, epoch.epoch, error)
        return data

    def _file(self, epoch: OpenEpoch) -> Path:
        return self._folder / f"{epoch.epoch}-{epoch.finalized_s}.boc"

    def _forget_all_but(self, wanted: frozenset[Path]) -> None:
        if not self._folder.is_dir():
            return
        try:
            for file in self._folder.iterdir():
                if file not in wanted and _OWN_FILE.fullmatch(file.name):
                    file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: cannot be cleared of what settled: %s", self._folder, error)


def _write(file: Path, data: Cell) -> None:
    boc = data.to_boc()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_durably(file, hashlib.sha256(boc).digest() + boc)


def _read(file: Path) -> Cell | None:
    """What is kept, or None if nothing is, or nothing that can be used (rule 2)."""
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s: cannot be read: %s", file, error)
        return None
    boc = content[_DIGEST_BYTES:]
    try:
        if hashlib.sha256(boc).digest() == content[:_DIGEST_BYTES]:
            return layout.parse_boc(boc, bytes_max=FILE_BYTES_MAX)
    except ContractsError as error:
        log.debug("%s: %s", file, error)
    log.warning("%s: damaged; the registry is read anew from the chain", file)
    return None
