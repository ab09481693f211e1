"""Interoperability with js-libp2p: `make interop`, or `python -m tests.interop` once `npm ci` ran here.

Starts three nodes of this project and a js-libp2p peer that knows no more than docs/wire.md says, and lets
them be one pool (`tests.interop.scene`). Prints what was checked; exits with 0 only if all of it held.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # as pytest does, by pyproject.toml

from pool_fixture import key

from gossip.errors import GossipError
from tests.interop import byte_checks, close_checks, gossip_checks, stream_checks
from tests.interop.foreign import HERE, ForeignError, open_foreign
from tests.interop.pool import open_members
from tests.interop.scene import OURS, N, Scene

CHECKS: dict[str, Callable[[Scene], Awaitable[str]]] = {
    "canonical form": byte_checks.canonical_values,
    "what is not canonical": byte_checks.not_canonical,
    "records": byte_checks.every_record,
    "receipts": byte_checks.receipts,
    "example": byte_checks.example,
    "connection": gossip_checks.connects,
    "identify": gossip_checks.identify,
    "ping": gossip_checks.pings,
    "mesh": gossip_checks.meshes,
    "our records by gossip": gossip_checks.our_records_arrive,
    "its records by gossip": gossip_checks.its_records_arrive,
    "bad gossip": gossip_checks.bad_gossip,
    "it asks us": stream_checks.it_asks,
    "we ask it": stream_checks.we_ask,
    "probes": stream_checks.probes,
    "address records": stream_checks.addresses,
    "malformed requests": stream_checks.malformed_requests,
    "observations": close_checks.its_observation,
    "proposals and votes": close_checks.it_votes,
    "close over streams": close_checks.close_over_streams,
    "settlement": close_checks.settles,
    "outside of the mesh": gossip_checks.by_announcement_alone,
}
"""Each returns a few words for the table, or raises one of `FAILURES`. The order matters."""

FAILURES = (AssertionError, ForeignError, GossipError, trio.TooSlowError)


def missing() -> str | None:
    """What has to be installed first, if anything."""
    if shutil.which("node") is None:
        return "Node 20 or newer is needed"
    if not (HERE / "node_modules").is_dir():
        return "js-libp2p is not installed: make interop"
    return None


async def run_checks() -> list[str]:
    """Run all checks, print one line each; returns the names of those that failed."""
    failed = []
    participants = [key(i).public for i in range(N)]
    async with open_members(OURS, N) as members, open_foreign(OURS, participants) as js:
        scene = Scene(members, js, await js.do("address"))
        for name, check in CHECKS.items():
            try:
                words = await check(scene)
            except FAILURES as error:
                failed.append(name)
                words = f"FAILED: {type(error).__name__} {error}"
            print(f"{'ok' if name not in failed else '--':3} {name:24} {words}", flush=True)  # noqa: T201 the table
    return failed


def main() -> int:
    if (reason := missing()) is not None:
        print(reason, file=sys.stderr)  # noqa: T201
        return 2
    logging.getLogger("gossip").setLevel(logging.CRITICAL)  # what malformed requests log is wanted here
    failed = trio.run(run_checks)
    print(f"{len(CHECKS) - len(failed)} of {len(CHECKS)} hold" + (f"; failed: {', '.join(failed)}" if failed else ""))  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
