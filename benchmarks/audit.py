"""An evidence bundle of a whole epoch: its size, and what exporting and verifying it cost.

The pool is made for it (`tests/support/audit_scene.py`): every participant is an operator and works all the time, in
windows of a minute. Verifying runs as a user runs it, in a process of its own. The reference checks the records'
signatures and nothing else.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import trio

from agent.audit.bundle import Bundle, write_bundle
from contracts import signing
from gossip.records import parse_record

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
WINDOW_S = 60
SMALL = ((4, 60), (4, 1430), (100, 60))
"""Participants, and windows of each: of an hour, and of a day."""
LARGE = ((100, 1430),)


def run(sizes: Sequence[tuple[int, int]] = SMALL) -> Iterator[dict[str, Any]]:
    for participants, windows in sizes:
        with tempfile.TemporaryDirectory() as directory:
            yield _measure(Path(directory), participants, windows)


def _measure(directory: Path, participants: int, windows: int) -> dict[str, Any]:
    sys.path.insert(0, str(SUPPORT))  # its modules import one another by their bare names, as under pytest
    from audit_scene import AuditScene

    scene = AuditScene(directory, participants, windows=windows, window_s=WINDOW_S, epoch_s=(windows + 3) * WINDOW_S)
    scene.run(1)
    began = time.process_time()
    bundle: Bundle = trio.run(scene.export, 1)
    target = directory / "epoch-1.audit"
    size = write_bundle(target, bundle)
    export_s = time.process_time() - began
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "agent", "audit", "verify", str(target), "--json"], capture_output=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    reference_s = _signatures_s(bundle)
    verify_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "participants": participants,
        "records": len(bundle.records),
        "file_bytes": size,
        "records_bytes": sum(map(len, bundle.records)),
        "observations_bytes": sum(map(len, bundle.observations)),
        "is_same": json.loads(done.stdout)["is_same"],
        "export_s": round(export_s, 2),
        "verify_s": round(verify_s, 2),
        "verify_mib_max": after.ru_maxrss >> 10,
        "reference": "the records' signatures alone",
        "reference_s": round(reference_s, 2),
        "ratio": round(verify_s / reference_s, 1),
    }


def _signatures_s(bundle: Bundle) -> float:
    records = [parse_record(wire, bundle.pool) for wire in bundle.records]
    began = time.process_time()
    for record in records:
        signing.verify(record.node_key, record.signed, record.signature)
    return time.process_time() - began
