"""Faults of what the agent measures, proves itself with, and pays from: engine, GPUs, collateral, evidence, wallet."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from nvml_stub import Stub

from agent.config import load_config
from agent.devnet.layout import GLOBAL_ID
from agent.identity import load_key
from attestation.providers.software import SoftwarePlatform, SoftwareRoot
from contracts.chain import open_chain
from contracts.model import NANO
from contracts.signing import SigningKey
from contracts.wallet import OutMessage, Wallet, wallet_address
from tests.faults.hands import hand
from tests.faults.hands_host import start_anew
from tests.faults.patient import Patient

GPU_IS_LOST = 15
GPUS = 2
LEFT_NANOTON = NANO // 50
FEE_NANOTON = NANO // 10
TWO_DAYS_S = 2 * 86_400


@hand("engine down")
async def engine_down(patient: Patient) -> AsyncIterator[None]:
    name, port = _engine(patient)
    patient.pool.kill_part(name)
    try:
        yield
    finally:
        await patient.pool.start_part(name, port)


@hand("engine reset")
async def engine_reset(patient: Patient) -> AsyncIterator[None]:
    name, port = _engine(patient)
    patient.pool.kill_part(name)
    await patient.pool.start_part(name, port)
    yield
    await start_anew(patient)


def _engine(patient: Patient) -> tuple[str, int]:
    table = load_config(patient.config).engine
    assert table is not None
    port = httpx.URL(table.urls[0]).port
    assert port is not None
    return patient.name.replace("agent", "engine"), port


@hand("GPU lost")
async def gpu_lost(patient: Patient) -> AsyncIterator[None]:
    stub = gpus(patient.pool.directory)
    stub.set(gpus=GPUS, fail__gpu__1=GPU_IS_LOST)
    try:
        yield
    finally:
        stub.set(gpus=GPUS, fail__gpu__1=None)


def gpus(directory: Path) -> Stub:
    """The driver's stand-in of this run, in `directory`; it has `GPUS` that work."""
    stub = Stub(directory / "nvml" / "libnvidia-ml.so.1", directory / "nvml")
    stub.set(gpus=GPUS)
    return stub


@hand("collateral stale")
async def collateral_stale(patient: Patient) -> AsyncIterator[None]:
    index = patient.pool.data(patient.name) / "collateral" / "index.json"
    records = json.loads(index.read_text())
    for record in records:
        record["kept_s"] -= TWO_DAYS_S
    await patient.pool.serve_collateral(patient.name, "tls-unknown")
    index.write_text(json.dumps(records))
    try:
        yield
    finally:
        await patient.pool.serve_collateral(patient.name, "tls")
        await start_anew(patient)


@hand("evidence expired")
async def evidence_expired(patient: Patient) -> AsyncIterator[None]:
    machine = patient.config.with_name("platform")
    aside = patient.config.with_name("platform.aside")
    stranger = SoftwareRoot.create(patient.pool.directory / "other-root", now_s=0)
    machine.rename(aside)
    SoftwarePlatform.create(machine, root=stranger)
    await start_anew(patient)
    try:
        yield
    finally:
        machine.rename(patient.config.with_name("platform.other"))
        aside.rename(machine)
        await start_anew(patient)


@hand("empty wallet")
async def empty_wallet(patient: Patient) -> AsyncIterator[None]:
    own, owner = patient.pool.seat(patient.name).wallet_key, owner_key(patient)
    lock = load_config(patient.config).wallet_lock_file
    address = wallet_address(own.public, "v5r1", global_id=GLOBAL_ID)
    async with open_chain([patient.pool.server]) as chain:
        balance_nanoton = (await chain.account(address)).balance_nanoton
    taken_nanoton = balance_nanoton - LEFT_NANOTON - FEE_NANOTON
    await send(patient, own, owner, taken_nanoton, lock)
    try:
        yield
    finally:
        await send(patient, owner, own, taken_nanoton)


async def send(
    patient: Patient, source: SigningKey, dest: SigningKey, amount_nanoton: int, lock_file: Path | None = None
) -> None:
    """Send TON from one wallet to another; `lock_file` is the source's, if an agent uses that wallet, too."""
    address = wallet_address(dest.public, "v5r1", global_id=GLOBAL_ID)
    async with open_chain([patient.pool.server]) as chain:
        wallet = Wallet(chain, source.seed, "v5r1", global_id=GLOBAL_ID, lock_file=lock_file)
        await wallet.transfer([OutMessage(dest=address, value_nanoton=amount_nanoton, body=None, bounce=False)])


def owner_key(patient: Patient) -> SigningKey:
    """The key of the pool's owner of before, whose wallet nobody else uses any more."""
    return load_key(patient.pool.directory / "owner.key")
