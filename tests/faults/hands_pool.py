"""Faults of what lies between the agent and the others: the chain, who shows it, the network, the other operators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import product

from agent.devnet.layout import free_ports
from agent.setup import toml_table
from tests.chaos.network import CUT
from tests.chaos.pool import CHAIN, HOME
from tests.faults.hands import hand
from tests.faults.hands_host import start_anew
from tests.faults.patient import Patient


@hand("chain down")
async def chain_down(patient: Patient) -> AsyncIterator[None]:
    patient.pool.kill_chain()
    try:
        yield
    finally:
        await patient.pool.start_chain()


@hand("liteserver lying")
async def liteserver_lying(patient: Patient) -> AsyncIterator[None]:
    pool, settings = patient.pool, patient.settings
    host, port = pool.network.rooms[HOME].address, free_ports(1)[0]
    folder = pool.directory / "other-chain"
    place = ("--dir", folder, "--host", host, "--port", port, "--genesis", pool.directory / "genesis.json")
    program = ["-m", "contracts.devchain", *map(str, (*place, "--block-seconds", 1))]
    liar = await pool.run_beside(HOME, program, "liar", reads_ready=True)
    key = (await liar.read_ready())["public_key"]
    table = toml_table("[[chain.liteservers]]", {"host": host, "port": port, "public_key": key})
    settings.replace("[[chain.liteservers]]", f"{table}\n[[chain.liteservers]]")
    await start_anew(patient)
    try:
        yield
    finally:
        await liar.stop()
        settings.restore()
        await start_anew(patient)


@hand("firewall one-way")
async def firewall_one_way(patient: Patient) -> AsyncIterator[None]:
    await patient.pool.network.set([(patient.name, other) for other in _others(patient)], CUT)
    try:
        yield
    finally:
        await patient.pool.network.heal()


@hand("no peers")
async def no_peers(patient: Patient) -> AsyncIterator[None]:
    await patient.pool.network.divide([patient.name], _others(patient))
    try:
        yield
    finally:
        await patient.pool.network.heal()


@hand("quorum unreachable")
async def quorum_unreachable(patient: Patient) -> AsyncIterator[None]:
    away = _others(patient)[1:]
    for name in away:
        patient.pool.kill(name)
    try:
        yield
    finally:
        for name in away:
            await patient.pool.start(name)


@hand("peers behind")
async def peers_behind(patient: Patient) -> AsyncIterator[None]:
    behind = _others(patient)[1:]
    ways = [*product([CHAIN], behind), *product(behind, [CHAIN])]
    await patient.pool.network.set(ways, CUT)
    try:
        yield
    finally:
        await patient.pool.network.heal()


def _others(patient: Patient) -> list[str]:
    return [name for name in patient.pool.names if name != patient.name]
