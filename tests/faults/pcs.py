"""A service of collateral for a software root: `python -m tests.faults.pcs --root DIR --tls DIR --port N`.

Prints one JSON line when it serves. `--tls` is where its certificate and CA stand; they are made if they are not there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # as pytest does, by pyproject.toml

from pcs_server import ServerTls, Site, serving

from attestation.providers.software import SOFTWARE_MACHINE, SoftwareRoot


async def _serve(options: argparse.Namespace) -> None:
    collateral = SoftwareRoot.load(options.root).collateral
    site = Site({("platform", "standard"): collateral}, fmspc=SOFTWARE_MACHINE.fmspc.hex(), is_pccs=True)
    is_made = (options.tls / "server.pem").exists()
    options.tls.mkdir(parents=True, exist_ok=True)
    tls = ServerTls.load(options.tls) if is_made else ServerTls.make(options.tls)
    async with serving(site, tls, options.port) as service:
        sys.stdout.write(json.dumps({"url": service.base_url, "ca_file": str(tls.ca_file)}) + "\n")
        sys.stdout.flush()
        await trio.sleep_forever()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.pcs")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--tls", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    trio.run(_serve, parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
