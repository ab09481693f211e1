"""`gpupool attest quote`: makes a quote on this machine, to look at it and to pin what it measures.

The quote goes to `--out` as it is, or to standard output in hex; what is in it, to standard error. It is a trial:
the evidence that counts is made by the running agent, over report data that binds its node key.

1. Without `--provider` the settings say where quotes come from, else the options alone; each is for one provider.
2. With `--gpu` the GPUs report, too, over the first 32 bytes of the report data; what they report stands beside
   the quote, in a file whose name ends in ".gpu".
"""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import trio

from agent.attest.inputs import REPORT_DATA_BYTES, parse_hex, settings, write_bytes
from agent.attest.report import table
from agent.attest.values import Tree, quote_value
from agent.config import is_host_port
from agent.errors import ConfigError
from agent.output import answer, note
from agent.providers import open_providers
from attestation.gpu_report import NONCE_BYTES
from attestation.providers import QuoteProvider
from attestation.providers.cocoon_guest import CocoonGuest
from attestation.providers.configfs import REPORTS, ConfigfsTsm, KernelFiles
from attestation.providers.software import SoftwarePlatform
from attestation.quote import parse_quote
from attestation.types import ProvidedQuote

_OF_PROVIDER = {"tsm_dir": "configfs", "address": "cocoon", "no_work": "cocoon", "software_dir": "software"}


def quote(options: argparse.Namespace) -> int:
    """Make a quote, and GPU evidence if it is asked for."""
    given = parse_hex("--report-data", options.report_data, REPORT_DATA_BYTES)
    challenge = given or secrets.token_bytes(REPORT_DATA_BYTES)
    if options.gpu and options.out is None:
        raise ConfigError("--gpu: needs --out FILE; what the GPUs report is written beside it")
    provider = _open(options)
    made, gpu_evidence = trio.run(_make, provider, challenge, options.gpu)
    parsed = parse_quote(made.quote)
    value: Tree = {
        "quote": made.quote.hex(),
        "challenge": challenge.hex(),
        "handshake": None if made.handshake is None else made.handshake.hex(),
        "gpu_evidence": None if gpu_evidence is None else gpu_evidence.hex(),
    }
    files = _write(options.out, made.quote, gpu_evidence)
    if not options.json:
        note(f"made a quote of {len(made.quote)} bytes{''.join(f'; wrote {path}' for path in files)}; in it:")
        note(table(quote_value(made.quote, parsed)).replace("\n", "\ngpupool: "))
        if made.handshake is not None:
            note("it is a guest's: the handshake with it, and not its report data, is tied to the challenge")
    if options.json or options.out is None:
        return answer(options, value, made.quote.hex())
    return 0


def _open(options: argparse.Namespace) -> QuoteProvider:
    for name, provider in _OF_PROVIDER.items():
        if getattr(options, name) and options.provider != provider:
            raise ConfigError(f"--{name.replace('_', '-')}: is for --provider {provider}")
    match options.provider:
        case "configfs":
            return ConfigfsTsm(KernelFiles(options.tsm_dir or REPORTS))
        case "cocoon":
            if options.address is None or not is_host_port(options.address):
                raise ConfigError(
                    f"--address {options.address or 'is missing'}: expected HOST:PORT of a worker's TLS port"
                )
            place = urlsplit(f"//{options.address}")
            return CocoonGuest(str(place.hostname), int(place.port or 0), proof_of_work=not options.no_work)
        case "software":
            if options.software_dir is None:
                raise ConfigError("--software-dir is missing: the folder of the software platform")
            return SoftwarePlatform.load(options.software_dir)
        case _:
            return open_providers(settings(options.config, "--provider")).quotes


async def _make(provider: QuoteProvider, challenge: bytes, has_gpus: bool) -> tuple[ProvidedQuote, bytes | None]:
    made = await provider.quote(challenge)
    if not has_gpus:
        return made, None
    # Here, not above: the library is for hosts with GPUs.
    from attestation.providers.nvml import collect_gpu_evidence

    return made, await collect_gpu_evidence(challenge[:NONCE_BYTES])


def _write(out: Path | None, raw: bytes, gpu_evidence: bytes | None) -> list[Path]:
    if out is None:
        return []
    files = {out: raw}
    if gpu_evidence is not None:
        files[out.with_name(out.name + ".gpu")] = gpu_evidence
    for path, data in files.items():
        write_bytes(path, data)
    return list(files)
