"""What a Cocoon worker and the health service of its guest write, for the stand-in: two schemas, a page, a protocol.

The texts have the form of the originals, with their flaws: `enabled` is true whatever happens, one name stands twice,
the first schema counts failures twice. They are written from the sources, not recorded: no worker was at hand.

Source: as in `agent.meter.cocoon_stats` and `agent.meter.cocoon_health`; `SimpleJsonSerializer`.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Sequence

from agent.devnet.cocoon_model import Earnings, WorkerModel
from contracts.model import Address

COMMIT = hashlib.sha1(b"devnet worker").hexdigest()
MODEL = "devnet/tiny-random"

_DECAYS_S = (1, 10, 60, 600, 3600, 86_400)
_ROOT = Address(0, hashlib.sha256(b"devnet root contract").digest())


def jsonstats(model: WorkerModel, *, schema: int, commit: str, doubles_failures: bool, worker_code_hash: bytes) -> str:
    """The JSON of `/jsonstats` in schema 1 or 2."""
    life, tariff = model.life, model.tariff
    status = [
        ("wallet_balance", str(2 * 10**9)),
        *((name, "true") for name in ("actual_image_hash", "actual_model", "enabled")),
        ("ton_last_synced_at", "1800000000"),
    ]
    stats = [
        ("queries", _statistic(life.queries)),
        ("success", _statistic(life.succeeded)),
        ("failed", _statistic(life.failed * (2 if doubles_failures else 1))),
        ("bytes_received", _statistic(life.queries * 512)),
        ("bytes_sent", _statistic(life.succeeded * 2048)),
        ("time", _statistic(life.queries * 0.25)),
        ("total_adjusted_tokens_used", _statistic(sum(life.adjusted.values()))),
        *((f"{part}_adjusted_tokens_used", _statistic(amount)) for part, amount in life.adjusted.items()),
    ]
    if schema == 2:
        status += [("git_commit", _string(commit)), ("git_commit_data", _string("2026-01-01 00:00:00 +0000"))]
        stats.insert(0, ("active_requests", str(model.running)))
    local = [
        ("root_address", _address(_ROOT)),
        ("owner_address", _address(model.owner)),
        ("model", _string(MODEL)),
        ("coefficient", str(tariff.coefficient)),
        ("check_proxy_hash" if schema == 1 else "check_image_hashes", "true"),
    ]
    multipliers = [(f"{part}_tokens_price_multiplier", str(value)) for part, value in tariff.multipliers.items()]
    root = [
        ("owner_address", _address(_ROOT)),
        ("worker_hashes", _list([_string(hashlib.sha256(b"image").hexdigest().upper())])),
        ("params_version", str(tariff.params_version)),
        *multipliers,
        *(pair for pair in multipliers if pair[0].startswith("cached")),
        ("worker_code_hash", _string(worker_code_hash.hex().upper())),
    ]
    parts = [
        ("status", _object(status)),
        ("stats", _object(stats)),
        ("localconfig", _object(local)),
        ("root_contract_config", _object(root)),
        ("proxies", _list([_proxy(proxy, tariff.params_version) for proxy in model.proxies])),
    ]
    return f"\n{_object(parts)}"


def stats_page(model: WorkerModel) -> str:
    """The parts of the page `/stats` that say what the JSON does not."""
    enabled = "yes" if model.is_enabled else "no"
    engine = "connected" if model.is_engine_connected else "disconnected"
    rows = "".join(
        f"<tr><td>127.0.0.1:11001</td><td>{'ready' if p.is_connected else 'not ready'}</td>"
        f"<td>{p.proxy.friendly(bounceable=False)}</td></tr>"
        for p in model.proxies
    )
    return (
        "<!DOCTYPE html>\n<html><body>\n<h1>STATUS</h1>\n<table>\n"
        f'<tr><td>enabled</td><td><span style="background-color:Green;">{enabled} <a href="/request/disable">disable'
        "</a></span></td></tr>\n"
        f'<tr><td>model connection</td><td><span style="background-color:Green;">{engine}</a></span></td></tr>\n'
        f"</table>\n<h1>PROXY CONNECTIONS</h1>\n<table>\n{rows}</table>\n</body></html>\n"
    )


def health_answer(model: WorkerModel, request: str) -> str:
    """What the guest's health service answers."""
    command, *arguments = request.split() or [""]
    if command == "status":
        return _health_status(model)
    if command == "gpu":
        return _GPU.format(busy=min(100, 25 * model.running))
    if command == "tdx":
        return _health_tdx()
    if command == "logs" and arguments:
        return f"-- journal of {arguments[0]} --\n" + f"{arguments[0]}: served {model.life.queries} queries\n"
    return '{"error":"Unknown command. Available: status, logs, sys, svc, tdx, eventlog, gpu, all"}'


def _statistic(total: float) -> str:
    # The decaying sums mean nothing here; that they are no counts is what the reader has to know.
    values = [float(total), *(total / (1 + seconds) for seconds in _DECAYS_S)]
    return _list([f"{value:.6f}" for value in values])


def _proxy(proxy: Earnings, params_version: int) -> str:
    return _object(
        [
            ("sc_inited", "true"),
            ("proxy_sc_address", _address(proxy.proxy)),
            ("proxy_public_key", _string(proxy.proxy_public_key.hex().upper())),
            ("sc_address", _address(proxy.worker)),
            ("earned_tokens_committed_to_blockchain", str(proxy.signed)),
            ("earned_tokens_committed_to_proxy_db", str(proxy.in_database)),
            ("earned_tokens_max_known", str(proxy.known)),
            ("cached_out_tokens", str(proxy.paid_out)),
            ("expected_cached_out_tokens", str(proxy.paid_out)),
            ("running_request", "false"),
            ("params_version", str(params_version)),
        ]
    )


def _object(pairs: Sequence[tuple[str, str]]) -> str:
    """Names may stand twice, as in the original."""
    return "{\n" + ",\n".join(f"{_string(name)}: {value}" for name, value in pairs) + "\n}"


def _list(items: Sequence[str]) -> str:
    return "[\n" + ",\n".join(items) + "\n]"


def _string(text: str) -> str:
    return f'"{text}"'


def _address(address: Address) -> str:
    return _string(address.friendly(bounceable=False))


def _health_status(model: WorkerModel) -> str:
    broken = [] if model.is_engine_connected else ["cocoon-sglang.service is failed"]
    verdict = f"ERROR - {len(broken)} service(s) failing" if broken else "OK - All critical services active"
    engine = "[-] cocoon-sglang.service: failed" if broken else "[+] cocoon-sglang.service: active (Mem: 9.5 GB)"
    return (
        f"Build: {COMMIT}\n       2026-01-01 00:00:00 +0000 - devnet\n\nStatus: {verdict}\n"
        + "".join(f"  - {line}\n" for line in broken)
        + f"TDX Image Hash: {base64.b64encode(_digest('image')[:32]).decode()}\nSystem: Load 0.10 | Mem 12.5%\n"
        "===============================\n\nServices:\n"
        f"  [+] cocoon-worker-runner.service: active (1 restarts, Mem: 1.2 GB)\n  {engine}\n"
        "  [~] docker.service: inactive\n"
    )


def _health_tdx() -> str:
    registers = "".join(f"RTMR{i}: {_digest(f'rtmr{i}').hex()}\n" for i in range(4))
    return (
        f"=== TDX STATUS ===\n\nBuild:\n  Commit:  {COMMIT}\n  Date:    2026-01-01\n  Message: devnet\n\n"
        f"Image Hash: {base64.b64encode(_digest('image')[:32]).decode()}\n\nAttestation Data:\n"
        f"COLLATERAL_ROOT_HASH: {_digest('collateral')[:32].hex()}\nTDX attestation data\n"
        f"MRTD: {_digest('mrtd').hex()}\n"
        f"MRCONFIGID: {bytes(48).hex()}\nMROWNER: {bytes(48).hex()}\nMROWNERCONFIG: {bytes(48).hex()}\n{registers}"
        f"REPORTDATA: {bytes(64).hex()}\nimage_hash: {_digest('image')[:32].hex()}\n\n"
        "Verification:\n  Image hash: + VERIFIED\n"
    )


def _digest(name: str) -> bytes:
    """48 bytes that stand for a measurement."""
    return random.Random(name).randbytes(48)


_GPU = """=== GPU METRICS ===
GPU 0:
  Model:       NVIDIA H100 PCIe
  Utilization: {busy}%
  Memory:      62.5 GB / 79.6 GB  (79%)
  Temperature: 55°C
  Power:       210W / 350W
"""
