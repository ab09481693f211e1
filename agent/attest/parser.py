"""The command line of `gpupool attest`: all verbs in the order of its help."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.verbs import Verb, Verbs, add_family, add_verbs, arg

_QUOTE = arg("quote", type=Path, metavar="QUOTE", help='a quote: binary, hex or base64; "-" is standard input')
_ANY = arg("file", type=Path, metavar="FILE", help='binary, hex, base64, PEM or JSON; "-": standard input')
_POLICY = arg("file", type=Path, metavar="FILE", help="the pool's policy document, or its attestation table alone")
_ROOT = arg("--root", type=Path, metavar="FILE", help="root certificate, DER or PEM (default: Intel's)")
_DIR = arg("--dir", type=Path, metavar="DIR", help="folder of the collateral (default: that of the config's agent)")

VERBS = (
    Verb(
        name="verify",
        run="agent.attest.verifying.verify",
        summary="verify a quote, appraise it by a policy",
        detail="Exit code 0 if it is authentic (and, with --policy, allowed), 1 if it is refused. Without --policy "
        "nothing says that it is allowed, whatever its TCB status.",
        example="quote.bin --collateral collateral.json --policy policy.toml",
        arguments=(
            _QUOTE,
            arg("--collateral", required=True, type=Path, metavar="FILE", help="collateral (JSON) of its platform"),
            _ROOT,
            arg("--at", metavar="TIME", help="time to verify at, Unix seconds or ISO 8601 (default: now)"),
            arg("--policy", type=Path, metavar="FILE", help="what is allowed: as for `policy check`"),
            arg("--report-data", metavar="HEX", help="what the quote must bind, 64 bytes (default: not checked)"),
            arg("--gpu", type=Path, metavar="FILE", help="GPU evidence beside the quote, or a GPU's report"),
            arg("--gpu-chain", type=Path, metavar="FILE", help="--gpu is a report alone: its certificates (PEM)"),
            arg("--gpu-nonce", metavar="HEX", help="what the GPUs must have signed, 32 bytes (default: not checked)"),
        ),
        has_config=False,
    ),
    Verb(
        name="show",
        run="agent.attest.showing.show",
        summary="show what is in a file; verify nothing",
        detail="Recognised are a quote, collateral, a bundle of it, certificates, a GPU's report or evidence.",
        example="quote.bin",
        arguments=(_ANY,),
        has_config=False,
    ),
    Verb(
        name="pin",
        run="agent.attest.showing.pin",
        summary="print the table of a policy that a file is pinned by; verify nothing",
        detail="Of a quote, a guest's certificate, a GPU's report or evidence. Pin what you trust only.",
        example='quote.bin --name "worker image 1.0"',
        arguments=(_ANY, arg("--name", required=True, metavar="NAME", help="of the entry, 1 to 128 characters")),
        has_config=False,
    ),
    Verb(
        name="quote",
        run="agent.attest.quoting.quote",
        summary="make a quote on this machine, for a trial",
        detail="It goes to --out, or in hex to standard output; what is in it, to standard error.",
        example="--provider configfs --out quote.bin",
        arguments=(
            arg("--provider", choices=("configfs", "cocoon", "software"), help="(default: as the config says)"),
            arg("--tsm-dir", type=Path, metavar="DIR", help="configfs: the kernel's report folder"),
            arg("--address", metavar="HOST:PORT", help="cocoon: TLS port of the worker"),
            arg("--no-work", action="store_true", help="cocoon: the port asks for no proof of work"),
            arg("--software-dir", type=Path, metavar="DIR", help="software: folder of the platform"),
            arg("--report-data", metavar="HEX", help="what to bind, 64 bytes (default: random)"),
            arg("--out", type=Path, metavar="FILE", help="write it there (default: hex on standard output)"),
            arg("--gpu", action="store_true", help="have the GPUs report, too: into the file of --out with .gpu added"),
        ),
    ),
    Verb(
        name="policy check",
        run="agent.attest.policy_verbs.check",
        summary="is a file a policy, and what is dangerous in it",
        detail="Exit code 0 if it is one, also a dangerous one, and 1 if it is none.",
        example="policy.toml",
        arguments=(_POLICY,),
        has_config=False,
    ),
    Verb(
        name="policy hash",
        run="agent.attest.policy_verbs.policy_hash",
        summary="print the hash that the pool commits to on chain",
        example="policy.toml",
        arguments=(_POLICY,),
        has_config=False,
    ),
    Verb(
        name="policy explain",
        run="agent.attest.policy_verbs.explain",
        summary="say what each option of a policy lets in",
        example="policy.toml",
        arguments=(_POLICY,),
        has_config=False,
    ),
    Verb(
        name="collateral fetch",
        run="agent.attest.collateral_verbs.fetch",
        summary="fetch the collateral for a quote",
        detail="From Intel's service, or a cache of it (PCCS); it is verified before it is kept.",
        example="quote.bin --update early --out collateral.json",
        arguments=(
            _QUOTE,
            arg("--url", metavar="URL", help="a PCCS to ask, https://HOST:PORT (default: Intel's service)"),
            arg("--ca-file", type=Path, metavar="FILE", help="certificates (PEM) to trust that PCCS by"),
            arg(
                "--update",
                choices=("early", "standard"),
                default="standard",
                help="which TCB levels; early is stricter (default: %(default)s)",
            ),
            arg("--out", type=Path, metavar="FILE", help="write it there, instead of keeping it"),
            _DIR,
            _ROOT,
        ),
    ),
    Verb(
        name="collateral export",
        run="agent.attest.collateral_verbs.export",
        summary="write what is held into a file, for other hosts",
        example="--out collateral.bundle",
        arguments=(arg("--out", required=True, type=Path, metavar="FILE", help="the bundle to write"), _DIR, _ROOT),
    ),
    Verb(
        name="collateral import",
        run="agent.attest.collateral_verbs.import_bundle",
        summary="take over the collateral of a bundle, or a single one",
        detail="What does not verify, or is older than that held, is refused, line by line: then the exit code is 1.",
        example="collateral.bundle",
        arguments=(
            arg("bundle", type=Path, metavar="BUNDLE", help="what export wrote, or collateral (JSON)"),
            arg("--update", choices=("early", "standard"), help="of single collateral (default: standard)"),
            _DIR,
            _ROOT,
        ),
    ),
    Verb(
        name="collateral list",
        run="agent.attest.collateral_verbs.list_held",
        summary="show which collateral is held, and until when",
        example="--dir /var/lib/gpupool/collateral",
        arguments=(_DIR, _ROOT),
    ),
    Verb(
        name="platform",
        run="agent.attest.platform_verb.platform",
        summary="make a TDX machine in software, for a development network",
        detail="It proves nothing, and public networks refuse it. `gpupool init` takes its folder and its root.",
        example="host/platform --root-dir net/tdx-root",
        arguments=(
            arg("dir", type=Path, metavar="DIR", help="folder of the new machine"),
            arg("--root-dir", required=True, type=Path, metavar="DIR", help="folder of the network's root"),
            arg("--new-root", action="store_true", help="make that root, too"),
        ),
        has_config=False,
    ),
    Verb(
        name="gpu",
        run="agent.attest.gpu_verb.gpu",
        summary="show whether the GPUs are in confidential mode",
        detail="As the driver says; exit code 1 if none can be used.",
        example="--json",
        has_config=False,
    ),
)

_FAMILIES = {"policy": "look into a policy document", "collateral": "fetch collateral, carry it to other hosts"}


def add_attest(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `attest` and all below it to the command line."""
    own = add_family(
        verbs,
        "attest",
        "verify and make quotes; look into policies, collateral and GPUs",
        "Attestation from the command line. Each has --help with an example.",
    )
    add_verbs(own, VERBS, _FAMILIES, config=default_config)
