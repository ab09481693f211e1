"""Run benchmarks: `python -m benchmarks [records|gossip|settlement ...]`; one JSON line each."""

from __future__ import annotations

import json
import platform
import sys
from functools import partial

from benchmarks import attestation, audit, gossip, idle, ledger, nvml, records, scale, settlement

BENCHMARKS = {
    "attestation": attestation.run,
    "audit": audit.run,
    "records": records.run,
    "gossip": gossip.run,
    "idle": idle.run,
    "ledger": ledger.run,
    "nvml": nvml.run,
    "settlement": settlement.run,
    "scale": scale.run,
}
ON_DEMAND = {
    "audit-large": partial(audit.run, audit.LARGE),
    "scale-large": partial(scale.run, scale.LARGE),
    "nvml-gpu": nvml.run_on_gpu,
}
"""These take long, or need a GPU, and are run when they are named."""


def main() -> int:
    names = sys.argv[1:] or list(BENCHMARKS)
    known = BENCHMARKS | ON_DEMAND
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in names:
        for result in known[name]():
            print(json.dumps({"benchmark": name, "python": platform.python_version(), **result}), flush=True)
    return 0


sys.exit(main())
