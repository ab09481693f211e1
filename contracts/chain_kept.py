"""What a liteserver answered, kept so that somebody who asks nobody can believe it later, from the bytes alone.

Decides nothing new: what is kept is believed by the rules of `contracts.chain_proofs`, the same ones that the chain
client keeps to. Untrusted input: everything kept; it came from a server, and then from whoever made the file.

1. A header shows a block's number and time, and the hash of the block before it.
2. An account is proven down from the masterchain block named (trust level 1).

3. A link shows that a block is an earlier one of the masterchain that another is of.

That a block is one of the masterchain is not shown by its own header: somebody has to compare its number and hash.

Source: TON `tl/generate/scheme/lite_api.tl` (`blockHeader`, `accountState`, `blockLinkBack`), `crypto/block/block.tlb`
(`BlockInfo`, `OldMcBlocksInfo`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytoniq_core import Cell
from pytoniq_core.tl.block import BlockIdExt
from pytoniq_core.tlb.block import BlockInfo

from contracts.chain_proofs import read_account, read_earlier_block, read_header
from contracts.chain_values import Account, Block
from contracts.errors import ChainConflictError, ChainUnavailableError
from contracts.model import Address

BLOCK_ID_BYTES = 80
STATE_CELLS_MAX = 66_000
"""An account holds 65,536 cells at most; what reads a bag of many more takes minutes for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHeader:
    """A masterchain block's id and the proof of its header (a bag of cells)."""

    seqno: int
    root_hash: bytes
    file_hash: bytes
    proof: bytes

    @classmethod
    def of(cls, answer: dict[str, Any]) -> KeptHeader:
        """A `blockHeader` that was believed before."""
        block = BlockIdExt.from_dict(answer["id"])
        return cls(
            seqno=block.seqno, root_hash=block.root_hash, file_hash=block.file_hash, proof=answer["header_proof"]
        )

    def believe(self) -> tuple[Block, bytes]:
        """The block, and the root hash of the one before it.

        Raises:
            ChainConflictError: the proof is not of this block's header.
        """
        named = Block(seqno=self.seqno, root_hash=self.root_hash, file_hash=self.file_hash, time_s=0)
        block = read_header({"id": named.to_tl(), "header_proof": self.proof}, seqno=self.seqno)
        try:
            info = BlockInfo.deserialize(Cell.one_from_boc(self.proof)[0][0].begin_parse())
            before: bytes = info.prev_ref.prev.root_hash
        except Exception as error:  # whatever a parser stumbles over
            raise ChainConflictError(f"block header: it does not show the block before: {error!r:.120}") from error
        return block, before


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAccount:
    """An account at a masterchain block: the shard block's id (TL bytes), and the proofs down to the state.

    `state` is empty for an account that was never touched.
    """

    address: Address
    seqno: int
    """Of the masterchain block."""
    shard: bytes
    shard_proof: bytes
    proof: bytes
    state: bytes

    @classmethod
    def of(cls, answer: dict[str, Any], address: Address, block: Block) -> KeptAccount:
        """An `accountState` that was believed before."""
        return cls(
            address=address,
            seqno=block.seqno,
            shard=BlockIdExt.from_dict(answer["shardblk"]).to_bytes(),
            shard_proof=answer["shard_proof"],
            proof=answer["proof"],
            state=answer["state"],
        )

    def believe(self, block: Block) -> Account:
        """The account at `block`, proven from there.

        Raises:
            ChainConflictError: it is of another block, or a proof does not hold.
        """
        if block.seqno != self.seqno or len(self.shard) != BLOCK_ID_BYTES:
            raise ChainConflictError(f"state of {self.address}: of another block")
        if _cells(self.state) > STATE_CELLS_MAX:
            raise ChainConflictError(f"state of {self.address}: of more cells than an account can have")
        answer = {
            "id": block.to_tl(),
            "shardblk": BlockIdExt.from_bytes(self.shard).to_dict(),
            "shard_proof": self.shard_proof,
            "proof": self.proof,
            "state": self.state,
        }
        return read_account(answer, self.address, block, trust_level=1)


def _cells(boc: bytes) -> int:
    """How many cells a bag says that it has, and its reader takes: after magic, flags with size, and width."""
    return int.from_bytes(boc[6 : 6 + (boc[4] & 7)], "big") if len(boc) > 4 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLink:
    """That block `target` is an earlier one in the masterchain of block `source` (by number), with the proofs of it."""

    source: int
    target: int
    proof: bytes
    state_proof: bytes

    @classmethod
    def of(cls, answer: dict[str, Any], source: Block, target: Block) -> KeptLink:
        """A `partialBlockProof` back from `source`, to be believed.

        Raises:
            ChainUnavailableError: it is something else than one link back.
        """
        steps = answer["steps"]
        if len(steps) != 1 or "state_proof" not in steps[0]:
            raise ChainUnavailableError(f"block proof: no link from block {source.seqno} back to {target.seqno}")
        return cls(
            source=source.seqno,
            target=target.seqno,
            proof=steps[0]["proof"],
            state_proof=steps[0]["state_proof"],
        )

    def believe(self, source: Block) -> bytes:
        """Root hash of the target, given the source.

        Raises:
            ChainConflictError: the source is another block, or a proof does not hold.
        """
        if source.seqno != self.source:
            raise ChainConflictError(f"block proof: from block {self.source}, not {source.seqno}")
        return read_earlier_block(self.proof, self.state_proof, source, self.target)
