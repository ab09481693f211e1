"""Run benchmarks: `python -m benchmarks [records|idle|settlement ...]`; one JSON line each."""

from __future__ import annotations

import json
import platform
import sys

from benchmarks import attestation, idle, records, settlement

BENCHMARKS = {
    "attestation": attestation.run,
    "records": records.run,
    "idle": idle.run,
    "settlement": settlement.run,
}


def main() -> int:
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in names:
        for result in BENCHMARKS[name]():
            print(json.dumps({"benchmark": name, "python": platform.python_version(), **result}), flush=True)
    return 0


sys.exit(main())
