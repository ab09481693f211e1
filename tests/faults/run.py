"""Brings faults about one at a time, on living pools, and holds the doctor and Prometheus to what they have to say.

A fault that fails does not end the run as long as its agent recovers; one that does ends the faults of its pool.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import trio
from nvml_stub import COMPILER, build
from prometheus_run import Prometheus, missing_program, run_prometheus

from agent.devnet.layout import Host, Seat, free_ports
from agent.errors import AgentError
from contracts.errors import ContractsError
from gossip.errors import GossipError
from tests.chaos.cage import Room, mount_small_disk
from tests.chaos.errors import ViolationError
from tests.chaos.network import Network, open_network
from tests.chaos.pool import CHAIN, HOME, TWIN
from tests.chaos.skewed_agent import set_ahead
from tests.faults import hands_cocoon, hands_host, hands_pool, hands_work
from tests.faults.fault import Fault, Ward
from tests.faults.hands import HANDS
from tests.faults.hands_entry import DOUBLE, move_in
from tests.faults.hands_work import gpus
from tests.faults.patient import Patient
from tests.faults.pool import FaultPool, Settings
from tests.faults.report import Outcome

_REGISTERED = (hands_cocoon, hands_host, hands_pool, hands_work)
"""Imported, they stand in `HANDS`."""

AGENTS, COCOON_AGENTS = 4, 3
EPOCH_S, COCOON_EPOCH_S = 15, 20
TIMING = {"settle_delay_s": 4, "collect_s": 3, "view_s": 4, "stage_s": 2}
EVIDENCE_S = 45
"""So long evidence holds, so that it can be seen to run out."""

Tell = Callable[[Outcome], None]


async def run(directory: Path, faults: Sequence[Fault], tell: Tell) -> list[str]:
    """Run these; what went wrong with a pool as a whole. `tell` hears of each fault when it is over.

    Cancelled or failed, no process is left.
    """
    wrong: list[str] = []
    for wards, play in (((Ward.OPERATOR, Ward.NEWCOMER), _play_in_rooms), ((Ward.COCOON,), _play_cocoon)):
        chosen = [fault for fault in faults if fault.ward in wards]
        if chosen:
            wrong += await play(directory / wards[0], chosen, tell)
    return wrong


async def _play_in_rooms(directory: Path, faults: Sequence[Fault], tell: Tell) -> list[str]:
    """Those of operator and newcomer, in a pool of which every agent has a network of its own."""
    names = [f"agent-{index}" for index in range(AGENTS)]
    mount_small_disk(directory / names[-1] / "data", hands_host.DISK_BYTES)
    has_gpus = _offer_gpus(directory)
    web_port = free_ports(1)[0]
    async with open_network([*names, CHAIN, TWIN, DOUBLE], HOME, seed=1) as network:

        async def drive(pool: FaultPool) -> None:
            set_ahead(pool.directory / f"{DOUBLE}.clock", 0)
            targets = {name: f"{network.rooms[name].address}:{pool.seat(name).web_port}" for name in names}
            targets[TWIN] = f"{network.rooms[TWIN].address}:{web_port}"
            with _watching(targets) as prometheus:
                operator = Patient(pool, names[-1], pool.seat(names[-1]).config, prometheus)
                of_operator = [fault for fault in faults if fault.ward is Ward.OPERATOR]
                if of_operator:
                    await operator.until_well()
                    await _play_all(operator, of_operator, tell)
                of_newcomer = [fault for fault in faults if fault.ward is Ward.NEWCOMER]
                if of_newcomer:
                    seat = await move_in(pool, web_port)
                    newcomer = Patient(pool, TWIN, seat.config, prometheus)
                    if of_newcomer[0].name != "unregistered":
                        async with HANDS["unregistered"](newcomer):
                            pass
                    await _play_all(newcomer, of_newcomer, tell)

        async def prepare(seat: Seat) -> None:
            if seat.name == names[-1]:
                settings = Settings(seat.config)
                if has_gpus:
                    settings.add("gpus", nvml=True)
                settings.add("attestation", **await pool.serve_collateral(seat.name, "tls"))

        demands = {"timing": TIMING, "attestation": {"evidence_age_max_s": EVIDENCE_S}}
        options: dict[str, Any] = {"agents": AGENTS, "epoch_s": EPOCH_S, "demands": demands}
        pool = FaultPool(directory, network, drive, prepare, **options)
        return await _live(pool)


async def _play_cocoon(directory: Path, faults: Sequence[Fault], tell: Tell) -> list[str]:
    """Those of a Cocoon worker, in a pool whose parts share one network."""

    async def drive(pool: FaultPool) -> None:
        name = pool.names[-1]
        with _watching({each: f"127.0.0.1:{pool.seat(each).web_port}" for each in pool.names}) as prometheus:
            patient = Patient(pool, name, pool.seat(name).config, prometheus)
            await patient.until_well()
            await _play_all(patient, faults, tell)

    async def prepare(seat: Seat) -> None:
        del seat

    await trio.Path(directory).mkdir(parents=True)
    options: dict[str, Any] = {"agents": COCOON_AGENTS, "epoch_s": COCOON_EPOCH_S, "source": "cocoon"}
    async with _one_room() as network:
        return await _live(FaultPool(directory, network, drive, prepare, **options))


async def _play_all(patient: Patient, faults: Sequence[Fault], tell: Tell) -> None:
    patient.note_backup()
    for fault in faults:
        patient.pool.say(f"--- {fault.name}: {fault.injected}")
        tell(await _play(patient, fault))


async def _play(patient: Patient, fault: Fault) -> Outcome:
    started_s, named_s, said, alert, wrong = time.monotonic(), None, None, None, []
    try:
        async with HANDS[fault.name](patient):
            begun_s = time.monotonic()
            try:
                said = await patient.until_named(fault)
                named_s = round(time.monotonic() - begun_s, 1)
                alert = await patient.until_alert(fault)
            except ViolationError as error:
                wrong.append(str(error))
        await patient.until_well(fault)
    except (ViolationError, TimeoutError, AgentError, ContractsError) as error:
        wrong.append(str(error))
    return Outcome(
        name=fault.name,
        code=fault.code,
        severity=str(fault.severity),
        cause=said["cause"] if said is not None else None,
        alert=alert,
        free=fault.free or None,
        named_after_s=named_s,
        took_s=round(time.monotonic() - started_s),
        wrong="; ".join(wrong) or None,
    )


async def _live(pool: FaultPool) -> list[str]:
    """The pool's whole life, up to the balanced books; what went wrong in it."""
    try:
        if await pool.run() is None:
            pool.faults.append("interrupted")
    except* (ViolationError, AgentError, ContractsError, GossipError, TimeoutError) as group:
        pool.faults += [str(error) for error in _leaves(group)]
    return pool.faults


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


def _offer_gpus(directory: Path) -> bool:
    """Let the agents that start from now on find a driver with GPUs, if one can be compiled here."""
    if COMPILER is None:
        return False
    folder = directory / "nvml"
    folder.mkdir(parents=True)
    build(folder)
    os.environ.update(gpus(directory).environment)
    return True


@contextmanager
def _watching(targets: dict[str, str]) -> Iterator[Prometheus | None]:
    """A Prometheus that scrapes these, or None where it is not installed."""
    with ExitStack() as stack:
        yield None if missing_program() else stack.enter_context(run_prometheus(targets))


class _OneRoom:
    """All parts in the room of this process, on loopback; that room itself is reached from outside, too."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def __getitem__(self, name: str) -> Room | Host:
        return self._room if name == HOME else _Loopback()


@dataclass(frozen=True, slots=True)
class _Loopback(Host):
    @property
    def enter(self) -> tuple[str, ...]:
        return self.prefix


@asynccontextmanager
async def _one_room() -> AsyncIterator[Network]:
    async with open_network([], HOME, seed=1) as network:
        network.rooms = cast(dict[str, Room], _OneRoom(network.rooms[HOME]))
        yield network
