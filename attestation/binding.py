"""What a quote binds: the 64 bytes of report data that tie it to a node key, a pool and a moment.

The anchor is a masterchain block; nobody knows its root hash before it exists, so a quote over it is not
older than the block. That the hash belongs to the claimed seqno and time is for whoever reads the chain.
"""

from __future__ import annotations

import hashlib

from attestation.errors import EvidenceMalformedError

TAG = b"gpupool/report/1"
NO_GPU_EVIDENCE = bytes(32)


def report_data(
    network: int, pool: bytes, node_key: bytes, anchor_hash: bytes, gpu_evidence_digest: bytes = NO_GPU_EVIDENCE
) -> bytes:
    """Return SHA-512(tag || network || pool || node key || anchor hash || GPU evidence digest), 64 bytes.

    `network` is the TON global id (int32, encoded big-endian); `pool` the account hash of the pool's
    contract, `node_key` the Ed25519 public key, `anchor_hash` the block's root hash, each 32 bytes;
    `gpu_evidence_digest` SHA-256 of the GPU report, 32 zero bytes without one. All lengths are fixed, so
    no two inputs give the same bytes to hash.

    Raises:
        EvidenceMalformedError: a length or range does not hold.
    """
    parts = {"pool": pool, "node key": node_key, "anchor hash": anchor_hash, "GPU digest": gpu_evidence_digest}
    for name, part in parts.items():
        if len(part) != 32:
            raise EvidenceMalformedError(f"report data: {name}: {len(part)} bytes, expected 32")
    if not -(1 << 31) <= network < 1 << 31:
        raise EvidenceMalformedError(f"report data: network {network} is not an int32")
    message = TAG + network.to_bytes(4, "big", signed=True) + b"".join(parts.values())
    return hashlib.sha512(message).digest()
