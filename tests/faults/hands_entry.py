"""Faults of a newcomer's entry in the registry, and of its key: registration, stake, suspension, a second host.

The newcomer is no operator: the pool settles whatever becomes of it.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import trio

from agent.config import load_config
from agent.devnet.commands import STAKE_TON
from agent.devnet.layout import GLOBAL_ID, Host, Seat, free_ports, write_config
from agent.devnet.processes import run_json
from agent.identity import load_key
from agent.setup import make_keys
from attestation.providers.software import SoftwarePlatform, SoftwareRoot
from contracts.model import NANO
from contracts.signing import SigningKey
from contracts.wallet import wallet_address
from tests.chaos.pool import TWIN
from tests.faults.hands import hand
from tests.faults.hands_work import owner_key, send
from tests.faults.patient import Patient
from tests.faults.pool import FaultPool

DOUBLE = "double"
"""The room of whoever has the newcomer's key, too."""
NEWCOMER_INDEX = 9
GIFT_NANOTON = 3 * STAKE_TON * NANO


async def move_in(pool: FaultPool, web_port: int) -> Seat:
    """Make a newcomer's folder, engine and wallet, and start it; it is not registered."""
    first = pool.seats[0]
    config = load_config(first.config)
    folder, room = pool.directory / TWIN, pool.network.rooms[TWIN]
    node_key, wallet_key = make_keys(folder)
    root = SoftwareRoot.load(pool.directory / "tdx-root")
    SoftwarePlatform.create(folder / "platform", root=root)
    seat = Seat(
        index=NEWCOMER_INDEX,
        directory=folder,
        node_key=node_key,
        wallet_key=wallet_key,
        p2p_port=free_ports(1)[0],
        web_port=web_port,
        host=Host(address=room.address, prefix=room.enter),
    )
    engine = await pool.start_engine(seat)
    policy, pool_address = pool.directory / "policy.toml", config.pool.contract
    tables = {"engine": {"url": engine}}
    write_config(seat, [first, seat], pool_address, policy, pool.directory / "tdx-root/root.der", pool.server, tables)
    await pool.start_other(seat.config, TWIN)
    return seat


@hand("unregistered")
async def unregistered(patient: Patient) -> AsyncIterator[None]:
    await send(patient, owner_key(patient), _wallet_key(patient), GIFT_NANOTON)
    try:
        yield
    finally:
        await _run(patient, "register", f"--stake={STAKE_TON}")


@hand("no stake")
async def no_stake(patient: Patient) -> AsyncIterator[None]:
    # A stake that is asked back whole still earns: it can be slashed until it is paid.
    await _command(patient, "slash", "--reason=offline")
    try:
        yield
    finally:
        await _run(patient, "stake", "add", str(STAKE_TON))


@hand("suspended")
async def suspended(patient: Patient) -> AsyncIterator[None]:
    await _command(patient, "suspend")
    try:
        yield
    finally:
        await _command(patient, "reinstate")


@hand("duplicate key")
async def duplicate_key(patient: Patient) -> AsyncIterator[None]:
    """The copy is one of the moment: it knows the log of the one that runs, and would go on with it."""
    pool, folder = patient.pool, patient.config.parent
    copy = pool.directory / DOUBLE
    await pool.end_other(patient.name)
    await trio.to_thread.run_sync(partial(shutil.copytree, folder, copy))
    await pool.start_other(patient.config, patient.name)
    await patient.until_well()
    config = copy / patient.config.name
    rooms = pool.network.rooms
    config.write_text(config.read_text().replace(rooms[patient.name].address, rooms[DOUBLE].address))
    await pool.start_other(config, DOUBLE)
    try:
        yield
    finally:
        await pool.end_other(DOUBLE)
        await pool.end_other(patient.name)
        await pool.start_other(patient.config, patient.name)


def _wallet_key(patient: Patient) -> SigningKey:
    return load_key(patient.config.with_name("wallet.key"))


async def _run(patient: Patient, *verb: str) -> Mapping[str, Any]:
    arguments = ["pool", *verb, f"--config={patient.config}", "--json"]
    return await run_json(" ".join(verb), arguments)


async def _command(patient: Patient, verb: str, *more: str) -> None:
    """What operators of more than two thirds of the weight command of the newcomer, by certificate."""
    pool = patient.pool
    address = str(wallet_address(_wallet_key(patient).public, "v5r1", global_id=GLOBAL_ID))
    file, signers = pool.directory / f"{verb}.json", pool.seats[:3]
    access = [f"--config={signers[0].config}", "--json"]
    await run_json(verb, ["pool", verb, address, *more, f"--out={file}", *access])
    for seat in signers[1:]:
        sign = ["pool", "certificate", "sign", str(file), f"--config={seat.config}", "--yes", "--json"]
        await run_json(f"{verb}: {seat.name} signs", sign)
    await run_json(f"{verb}: submit", ["pool", "certificate", "submit", str(file), *access])
