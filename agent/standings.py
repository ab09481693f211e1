"""Standings: how everybody's evidence stands, for the status, and who has the place on a machine.

Nothing here decides what is paid: the tally does (`gossip.coverage`); this says it in advance, and why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from attestation.appraisal import Appraisal
from attestation.errors import AnchorStaleError, AttestationError
from gossip.settlement import GPU_ID_BYTES, Base


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The words of an `AttestationError`: what is kept and shown of it."""

    code: str
    fault: str
    message: str
    remedy: str

    @classmethod
    def of(cls, error: AttestationError) -> Refusal:
        return cls(code=error.code, fault=error.fault, message=str(error), remedy=error.remedy)

    def value(self) -> dict[str, str]:
        """As JSON."""
        return {"code": self.code, "fault": self.fault, "message": self.message, "remedy": self.remedy}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The verdict on a participant's latest evidence, which is its record number `seq`."""

    record: bytes
    seq: int
    found: Appraisal | Refusal

    def refusal(self, now_s: int) -> Refusal | None:
        """Why it does not hold at `now_s` (Unix seconds), or None: evidence that ran out is refused like any other."""
        if isinstance(self.found, Refusal):
            return self.found
        try:
            self.found.require_current(now_s)
        except AnchorStaleError as error:
            return Refusal.of(error)
        return None

    @property
    def machine(self) -> bytes | None:
        """The machine that it is of (32 bytes), None if it is refused."""
        return self.found.machine if isinstance(self.found, Appraisal) else None

    @property
    def gpus(self) -> frozenset[bytes]:
        """The GPUs that it proves, as a settlement names them."""
        found = self.found.gpus if isinstance(self.found, Appraisal) else ()
        return frozenset(gpu.identity[:GPU_ID_BYTES] for gpu in found)

    def value(self, now_s: int) -> dict[str, Any]:
        """As JSON."""
        refusal = self.refusal(now_s)
        value: dict[str, Any] = {"valid": refusal is None, "error": None if refusal is None else refusal.value()}
        if isinstance(self.found, Appraisal):
            verified = self.found.verified
            value |= {
                "valid_until_s": self.found.valid_until_s,
                "tcb_status": str(verified.status),
                "tcb_date_s": verified.tcb_date_s,
                "advisories": list(verified.advisories),
                "measurement": self.found.measurement,
                "machine": self.found.machine.hex(),
                "gpus": len(self.found.gpus),
            }
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who has the place that this node claims: all there are on its machine, or (`is_gpu`) that on one of its GPUs."""

    node_key: bytes
    is_gpu: bool


def settled_evidence(
    node_keys: Iterable[bytes], standings: Mapping[bytes, Standing], base: Base, now_s: int
) -> dict[bytes, int]:
    """Until when (Unix seconds) evidence is in force that an epoch settled, of those of whom none was judged since.

    After a start that is most of them: records that a settlement counted are not here any more.
    """
    latest = {
        key: max((window.until_s for window in base.reading(key).evidence if window.from_s <= now_s), default=0)
        for key in node_keys
        if key not in standings
    }
    return {key: until_s for key, until_s in latest.items() if until_s >= now_s}


def place_taken_by(
    node_key: bytes,
    standings: Mapping[bytes, Standing],
    base: Base,
    *,
    registered: Collection[bytes],
    nodes_max: int,
    now_s: int,
) -> Holder | None:
    """Who holds the place on this node's machine, if others hold all there are (`work.machine_nodes_max`), or a GPU.

    Only keys that are `registered` hold one; the key that this node's took the place of in the registry is none.
    """
    own = standings.get(node_key)
    if own is None or own.machine is None:
        return None
    in_force = {
        key: [window for window in reading.evidence if window.until_s >= now_s]
        for key, reading in base.readings.items()
        if key in registered
    }
    holders = [key for key, windows in in_force.items() if any(w.machine == own.machine for w in windows)]
    if node_key not in holders and len(holders) >= nodes_max:
        return Holder(node_key=holders[0], is_gpu=False)
    held = {gpu for window in in_force.get(node_key, ()) for gpu in window.gpus}
    sharing = (key for key, ws in in_force.items() if any((own.gpus - held).intersection(w.gpus) for w in ws))
    return next((Holder(node_key=key, is_gpu=True) for key in sharing if key != node_key), None)
