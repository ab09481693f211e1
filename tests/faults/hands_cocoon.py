"""Faults of a Cocoon worker: its contract, its uplinks, its control port. Its parts speak over loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

from agent.config import load_config
from agent.devnet.processes import run_json
from contracts.chain import open_chain
from contracts.reader import PoolReader
from tests.chaos.pool import HOME
from tests.faults.hands import hand
from tests.faults.hands_host import start_anew
from tests.faults.patient import Patient


@hand("worker contract unset")
async def worker_contract_unset(patient: Patient) -> AsyncIterator[None]:
    seat, config = patient.pool.seat(patient.name), load_config(patient.config)
    async with open_chain([patient.pool.server]) as chain:
        entries = await PoolReader(chain, config.pool.contract).registry(await chain.head())
    worker = next(entry.worker for entry in entries if entry.node_key == seat.node_key.public)
    access = [f"--config={patient.config}", "--json"]
    await run_json("worker none", ["pool", "worker", "none", *access])
    try:
        yield
    finally:
        await run_json("worker", ["pool", "worker", str(worker), *access])


@hand("uplink down")
async def uplink_down(patient: Patient) -> AsyncIterator[None]:
    async with httpx.AsyncClient(trust_env=False, base_url=_url(patient)) as worker:
        (await worker.post("/devnet/uplinks/down")).raise_for_status()
        try:
            yield
        finally:
            (await worker.post("/devnet/uplinks/up")).raise_for_status()


@hand("public control port")
async def public_control_port(patient: Patient) -> AsyncIterator[None]:
    port = httpx.URL(_url(patient)).port
    public = patient.pool.network.rooms[HOME].address
    program = ["-m", "tests.faults.forward", public, str(port)]
    forwarder = await patient.pool.run_beside(patient.name, program, "forward", reads_ready=True)
    await forwarder.read_ready()
    await start_anew(patient)  # a running agent tries its worker's port every ten minutes
    try:
        yield
    finally:
        await forwarder.stop()
        await start_anew(patient)


def _url(patient: Patient) -> str:
    table = load_config(patient.config).cocoon
    assert table is not None
    return table.urls[0]
