"""Faults of the host: clock, disk, memory, ports, the journal's file, keys and settings.

Where an agent meets the fault when it starts, it is stopped in order first: a journal beside which no log stands is
whole in one file.
"""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from agent.config import load_config
from agent.devnet.processes import Child
from tests.faults.hands import hand
from tests.faults.patient import Patient
from tests.faults.pool import wait_until

ENDS_S = 30.0
CLOCK_OFF_S = -300.0
STEP_S = 20.0
"""Less than the agent calls a wrong clock."""
DISK_BYTES = 2 << 30
ADDRESS_SPACE_SPARE = 20
"""Of what it has, one part in so many is left."""


@asynccontextmanager
async def stopped(patient: Patient) -> AsyncIterator[None]:
    """Stopped before the block; started again after it, whether or not it ended by itself meanwhile."""
    await patient.pool.end(patient.name)
    try:
        yield
    finally:
        if patient.pool.is_running(patient.name):
            await patient.pool.end(patient.name)


async def start_in_vain(patient: Patient) -> None:
    """Start it, and wait until it has ended by itself."""
    await patient.pool.start(patient.name)
    patient.pool.expect_end(patient.name)
    await wait_until(lambda: not patient.pool.is_running(patient.name), ENDS_S, "an agent that cannot start ends")


async def start_anew(patient: Patient) -> None:
    """Stop it, if it runs, and start it."""
    await patient.pool.end(patient.name)
    await patient.pool.start(patient.name)


@hand("wrong clock")
async def wrong_clock(patient: Patient) -> AsyncIterator[None]:
    patient.pool.set_clock_ahead(patient.name, CLOCK_OFF_S)
    try:
        yield
    finally:
        patient.pool.set_clock_ahead(patient.name, 0)
        await start_anew(patient)


@hand("clock step back")
async def clock_step_back(patient: Patient) -> AsyncIterator[None]:
    patient.pool.set_clock_ahead(patient.name, STEP_S)
    await trio.sleep(4)  # some readings by that clock
    patient.pool.set_clock_ahead(patient.name, 0)
    yield
    await trio.sleep(STEP_S)
    await start_anew(patient)


@hand("memory limit")
async def memory_limit(patient: Patient) -> AsyncIterator[None]:
    pid = patient.pool.child(patient.name).pid
    used_bytes = _address_space_bytes(pid)
    unlimited = resource.prlimit(pid, resource.RLIMIT_AS)
    limit_bytes = used_bytes + used_bytes // ADDRESS_SPACE_SPARE
    resource.prlimit(pid, resource.RLIMIT_AS, (limit_bytes, unlimited[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, unlimited)


def _address_space_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


@hand("full disk")
async def full_disk(patient: Patient) -> AsyncIterator[None]:
    # SQLite writes over its log of before: an agent that ran for long has room in it for minutes.
    folder = patient.pool.data(patient.name)
    await start_anew(patient)
    patient.pool.expect_end(patient.name)
    usage = os.statvfs(folder)
    used_bytes = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
    _resize(patient, used_bytes)
    try:
        yield
    finally:
        _resize(patient, DISK_BYTES)
        await start_anew(patient)


def _resize(patient: Patient, size_bytes: int) -> None:
    folder = patient.pool.data(patient.name)
    subprocess.run(["mount", "-o", f"remount,size={size_bytes}", str(folder)], check=True)


@hand("wrong key permissions")
async def wrong_key_permissions(patient: Patient) -> AsyncIterator[None]:
    key = patient.config.with_name("node.key")
    async with stopped(patient):
        key.chmod(key.stat().st_mode | stat.S_IROTH)
        await start_in_vain(patient)
        try:
            yield
        finally:
            key.chmod(stat.S_IRUSR | stat.S_IWUSR)
    await patient.pool.start(patient.name)


@hand("port taken")
async def port_taken(patient: Patient) -> AsyncIterator[None]:
    web = load_config(patient.config).web
    async with stopped(patient):
        program = ["-m", "http.server", str(web.port), "--bind", web.host]
        server = await patient.pool.run_beside(patient.name, program, "web-server")
        await _answers(web.host, web.port)
        await start_in_vain(patient)
        try:
            yield
        finally:
            await server.stop()
    await patient.pool.start(patient.name)


@hand("database locked")
async def database_locked(patient: Patient) -> AsyncIterator[None]:
    lock = load_config(patient.config).journal_file.with_name("journal.sqlite.lock")
    program = ["-m", "tests.faults.hold", str(lock)]
    async with stopped(patient):
        holder = await patient.pool.run_beside(patient.name, program, "holder", reads_ready=True)
        await holder.read_ready()
        await start_in_vain(patient)
        try:
            yield
        finally:
            await _kill(holder)
    await patient.pool.start(patient.name)


@hand("database corrupt")
async def database_corrupt(patient: Patient) -> AsyncIterator[None]:
    journal = load_config(patient.config).journal_file
    copy = patient.pool.directory / "journal.copy"
    async with stopped(patient):
        shutil.copy2(journal, copy)
        with journal.open("r+b") as file:
            for page in range(2, journal.stat().st_size // 4096):
                file.seek(page * 4096 + 2048)
                file.write(os.urandom(256))
        await patient.pool.start(patient.name)
        patient.pool.expect_end(patient.name)
        try:
            yield
        finally:
            await patient.pool.end(patient.name)
            for beside in ("-wal", "-shm"):
                journal.with_name(journal.name + beside).unlink(missing_ok=True)
            shutil.copyfile(copy, journal)  # the same file: a journal at another place makes an agent wary of a twin
    await patient.pool.start(patient.name)


@hand("policy mismatch")
async def policy_mismatch(patient: Patient) -> AsyncIterator[None]:
    pool_policy = patient.pool.directory / "policy.toml"
    other = patient.config.with_name("other-policy.toml")
    other.write_text(pool_policy.read_text().replace("tokens_per_task_min = 10", "tokens_per_task_min = 11"))
    settings = patient.settings
    async with stopped(patient):
        settings.add("pool", policy_file=str(other))
        await start_in_vain(patient)
        try:
            yield
        finally:
            settings.restore()
    await patient.pool.start(patient.name)


@hand("wrong pool")
async def wrong_pool(patient: Patient) -> AsyncIterator[None]:
    settings = patient.settings
    async with stopped(patient):
        settings.add("pool", address="0:" + "ab" * 32)
        await start_in_vain(patient)
        try:
            yield
        finally:
            settings.restore()
    await patient.pool.start(patient.name)


@hand("old version")
async def old_version(patient: Patient) -> AsyncIterator[None]:
    patient.pool.modules[patient.name] = "tests.faults.old_agent"
    await start_anew(patient)
    try:
        yield
    finally:
        del patient.pool.modules[patient.name]
        await start_anew(patient)


async def _answers(host: str, port: int) -> None:
    """Wait until somebody listens there."""
    with trio.fail_after(ENDS_S):
        while True:
            try:
                stream = await trio.open_tcp_stream(host, port)
            except OSError:
                await trio.sleep(0.2)
            else:
                await stream.aclose()
                return


async def _kill(child: Child) -> None:
    child.kill()
    await child.stop()
