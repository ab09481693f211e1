// What the pool's operators and participants compute, a second time: from plain values to cells with @ton/core.
//
// Written after contracts/schema.tlb and nothing else, so that an error in contracts/layout (Python) shows as a
// difference of hashes. Numbers come as decimal strings, hashes and seeds as hex, addresses in raw form.
import { Address, beginCell, Dictionary } from "@ton/core";
import { keyPairFromSeed, sign } from "@ton/crypto";

const TAG_CERTIFICATE = 0x43455254;
const KIND_SETTLE = 1;
const OP = {
  submitCertificate: 0x4b7a4987,
  claimRewards: 0x44345c00,
  executeBatch: 0x1101959c,
};

const leafValue = {
  serialize: (leaf, builder) => {
    builder
      .storeCoins(BigInt(leaf.earned))
      .storeUint(BigInt(leaf.score), 128)
      .storeUint(BigInt(leaf.tokens), 64)
      .storeUint(leaf.tasks, 32)
      .storeUint(leaf.uptime, 32)
      .storeUint(leaf.quality, 16)
      .storeUint(leaf.reputation, 16)
      .storeUint(leaf.flags, 8);
  },
  parse: () => {
    throw new Error("leaves are only written here");
  },
};

// The dictionary of a settlement's leaves: account -> Leaf.
export function totals(leaves) {
  const dictionary = Dictionary.empty(Dictionary.Keys.BigUint(256), leafValue);
  for (const leaf of leaves) {
    dictionary.set(accountOf(leaf.participant), leaf);
  }
  return dictionary;
}

export function totalsRoot(leaves) {
  return leaves.length === 0 ? Buffer.alloc(32) : beginCell().storeDictDirect(totals(leaves)).endCell().hash();
}

// Merkle proof of the leaves of these participants.
export function proof(leaves, participants) {
  return totals(leaves).generateMerkleProof(participants.map(accountOf));
}

// Sums and count are reckoned from the leaves, not taken over.
export function settlePayload(plain, leaves) {
  const sum = (field) => leaves.reduce((total, leaf) => total + BigInt(leaf[field]), 0n);
  const tail = beginCell()
    .storeUint(sum("tasks"), 64)
    .storeUint(sum("tokens"), 64)
    .storeBuffer(Buffer.from(plain.policy_hash, "hex"))
    .storeBuffer(Buffer.from(plain.cut_root, "hex"))
    .endCell();
  return beginCell()
    .storeUint(KIND_SETTLE, 8)
    .storeUint(plain.epoch, 32)
    .storeBuffer(Buffer.from(plain.prev, "hex"))
    .storeBuffer(totalsRoot(leaves))
    .storeUint(leaves.length, 32)
    .storeUint(sum("score"), 128)
    .storeCoins(sum("earned"))
    .storeRef(tail)
    .endCell();
}

export function certificate(domain, payload) {
  const kind = payload.beginParse().preloadUint(8);
  return beginCell()
    .storeUint(TAG_CERTIFICATE, 32)
    .storeInt(domain.global_id, 32)
    .storeAddress(Address.parse(domain.pool))
    .storeUint(domain.set_id, 32)
    .storeUint(domain.valid_until, 32)
    .storeUint(kind, 8)
    .storeRef(payload)
    .endCell();
}

// Signed here, with the operators' seeds. The chain is one link to a cell, the first signer outermost.
export function submitBody(certificateCell, signers) {
  const chain = signers.reduceRight(
    (next, { index, seed }) =>
      beginCell()
        .storeUint(index, 16)
        .storeBuffer(sign(certificateCell.hash(), keyPairFromSeed(Buffer.from(seed, "hex")).secretKey))
        .storeMaybeRef(next)
        .endCell(),
    null,
  );
  return beginCell()
    .storeUint(OP.submitCertificate, 32)
    .storeUint(0, 64)
    .storeUint(signers.length, 8)
    .storeRef(certificateCell)
    .storeRef(chain)
    .endCell();
}

export function claimBody(participant, proofCell) {
  return beginCell()
    .storeUint(OP.claimRewards, 32)
    .storeUint(0, 64)
    .storeUint(accountOf(participant), 256)
    .storeRef(proofCell)
    .endCell();
}

// Accounts travel as a chain of cells of up to three.
export function pushBody(participants, proofCell) {
  let chain = null;
  for (let end = participants.length; end > 0; ) {
    const start = Math.floor((end - 1) / 3) * 3;
    const link = beginCell().storeUint(end - start, 2);
    participants.slice(start, end).forEach((participant) => link.storeUint(accountOf(participant), 256));
    chain = link.storeMaybeRef(chain).endCell();
    end = start;
  }
  return beginCell()
    .storeUint(OP.executeBatch, 32)
    .storeUint(0, 64)
    .storeUint(participants.length, 8)
    .storeRef(chain)
    .storeRef(proofCell)
    .endCell();
}

function accountOf(address) {
  return BigInt(`0x${Address.parse(address).hash.toString("hex")}`);
}
