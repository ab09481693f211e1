// The pool's messages, written from docs/wire.md alone: envelopes, records, messages of the close, requests.
//
// Decides whether bytes are such a message of this pool and whether its signatures hold; every byte is untrusted.

import { createHash, createPrivateKey, createPublicKey, sign, verify } from 'node:crypto'
import { decode, encode, InvalidMessage } from './canonical.mjs'

export const RECORD_BYTES_MAX = 32 * 1024
export const ADDRESS_BYTES_MAX = 4096
export const GOSSIP_BYTES_MAX = 64 * 1024
export const RESPONSE_BYTES_MAX = 4 * 1024 * 1024
export const KIND = { evidence: 1, work: 2, receipt: 3, close: 4 }

const FIELDS = { observation: 6, proposal: 5, attest: 3 }
const SEED_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex') // PKCS #8 of an Ed25519 seed, RFC 8410
const KEY_PREFIX = Buffer.from('302a300506032b6570032100', 'hex') // SubjectPublicKeyInfo of an Ed25519 key

export const sha256 = (data) => createHash('sha256').update(data).digest()
export const hex = (bytes) => Buffer.from(bytes).toString('hex')

export class SigningKey {
  constructor (seed) {
    this.private = createPrivateKey({ key: Buffer.concat([SEED_PREFIX, seed]), format: 'der', type: 'pkcs8' })
    this.public = createPublicKey(this.private).export({ format: 'der', type: 'spki' }).subarray(KEY_PREFIX.length)
  }

  sign (message) {
    return sign(null, message, this.private)
  }

  seal (signed) {
    return encode([signed, this.sign(signed)])
  }
}

export function requireSignature (key, signed, signature) {
  const publicKey = createPublicKey({ key: Buffer.concat([KEY_PREFIX, key]), format: 'der', type: 'spki' })
  require(verify(null, signed, publicKey, signature), 'signature: does not hold')
}

export const topic = (pool) => `gpupool/1/${pool.network}/${hex(pool.account)}`

/** Read and verify a record. Returns its fields, `hash`, and the wire that its fields encode to again. */
export function parseRecord (wire, pool) {
  const [signed, signature] = openEnvelope(wire, RECORD_BYTES_MAX)
  const items = array(decode(signed, RECORD_BYTES_MAX), 'record', 8)
  const [tag, network, account, nodeKey, seq, prevHash, kind, body] = items
  require(tag === 'gpupool/record/1' && network === pool.network, 'record: of another version or network')
  require(equal(account, pool.account), 'record: of another pool')
  bytes(nodeKey, 'node_key', 32)
  bytes(prevHash, 'prev_hash', 32)
  uint(seq, 'seq', 63)
  require(seq > 0, 'seq: starts at 1')
  const read = READERS[kind]
  require(read !== undefined, `kind: ${kind} is unknown`)
  read(body)
  requireSignature(nodeKey, signed, signature)
  if (kind === KIND.receipt) for (const receipt of body[0]) requireReceipt(pool, nodeKey, receipt)
  return { nodeKey, seq, prevHash, kind, body, wire, hash: sha256(signed), again: encode([encode(items), signature]) }
}

export function makeRecord (key, pool, seq, prevHash, kind, body) {
  const items = ['gpupool/record/1', pool.network, pool.account, key.public, seq, prevHash, kind, body]
  return parseRecord(key.seal(encode(items)), pool)
}

/** Read and verify an observation, a proposal or an attest. Returns {operator, fields, digest, wire}. */
export function parseMessage (kind, wire, pool) {
  const count = FIELDS[kind]
  require(count !== undefined, `${kind}: no message of a close`)
  const [signed, signature] = openEnvelope(wire, 2 * 1024 * 1024)
  const items = array(decode(signed, 2 * 1024 * 1024), kind, 4 + count)
  require(items[0] === `gpupool/${kind}/1` && items[1] === pool.network, `${kind}: of another version or network`)
  require(equal(items[2], pool.account), `${kind}: of another pool`)
  const operator = bytes(items[3], 'operator', 32)
  requireSignature(operator, signed, signature)
  const fields = items.slice(4)
  if (kind === 'attest') requireSignature(operator, bytes(fields[1], 'cert_hash', 32), fields[2])
  return { operator, fields, digest: sha256(signed), wire, again: encode([encode(items), signature]) }
}

export function makeMessage (kind, key, pool, fields) {
  const items = [`gpupool/${kind}/1`, pool.network, pool.account, key.public, ...fields]
  return parseMessage(kind, key.seal(encode(items)), pool)
}

/** Read and verify an address record. Returns {nodeKey, issuedS, addresses, digest, wire}. */
export function parseAddress (wire, pool) {
  const [signed, signature] = openEnvelope(wire, ADDRESS_BYTES_MAX)
  const items = array(decode(signed, ADDRESS_BYTES_MAX), 'address record', 6)
  const [tag, network, account, nodeKey, issuedS, addresses] = items
  require(tag === 'gpupool/address/1' && network === pool.network, 'address record: of another version or network')
  require(equal(account, pool.account), 'address record: of another pool')
  uint(issuedS, 'issued_s', 48)
  require(Array.isArray(addresses) && addresses.length <= 8, 'addresses')
  for (const address of addresses) require(typeof address === 'string' && [...address].length <= 256, 'address')
  requireSignature(bytes(nodeKey, 'node_key', 32), signed, signature)
  return { nodeKey, issuedS, addresses, digest: sha256(signed), wire }
}

export function makeAddress (key, pool, issuedS, addresses) {
  const items = ['gpupool/address/1', pool.network, pool.account, key.public, issuedS, addresses]
  return parseAddress(key.seal(encode(items)), pool)
}

export const encodeGossip = (kind, wire) => encode([kind, wire])

export function parseGossip (data) {
  const [kind, wire] = array(decode(data, GOSSIP_BYTES_MAX), 'gossip', 2)
  return { kind, wire: bytes(wire, 'wire') }
}

export const encodeRequest = (name, value) => encode(['gpupool/sync/1', [name, value]])

export function parseRequest (data, bytesMax) {
  const [tag, body] = array(decode(data, bytesMax), 'request', 2)
  require(tag === 'gpupool/sync/1', 'request: of another version')
  return array(body, 'request', 2)
}

const READERS = {
  [KIND.evidence] (body) {
    const [quote, attached, anchor] = array(body, 'evidence', 3)
    bytes(quote, 'quote')
    require(quote.length <= 16 * 1024, 'quote: too long')
    const [collateral, gpu, handshake] = array(attached, 'attached', 3)
    bytes(collateral, 'collateral_digest', 32)
    for (const digest of [gpu, handshake]) if (digest !== null) bytes(digest, 'digest', 32)
    const [seqno, rootHash, timeS] = array(anchor, 'anchor', 3)
    uint(seqno, 'anchor_seqno', 32)
    bytes(rootHash, 'anchor_root_hash', 32)
    uint(timeS, 'anchor_time_s', 32)
  },
  [KIND.work] (body) {
    const [startS, endS, readings, evidence] = array(body, 'work', 4)
    for (const value of [startS, endS]) uint(value, 'time', 32)
    require(startS < endS, 'work: the window is empty')
    require(Array.isArray(readings) && readings.length <= 17, 'readings')
    let last = -1
    for (const item of readings) {
      const place = readReading(item, endS - startS)
      require(place > last, 'readings: sources must ascend')
      last = place
    }
    if (evidence !== null) bytes(evidence, 'evidence', 32)
  },
  [KIND.receipt] (body) {
    const [receipts] = array(body, 'receipts', 1)
    require(Array.isArray(receipts) && receipts.length >= 1 && receipts.length <= 100, 'receipts')
    let last = null
    for (const item of receipts) {
      const [signer, jobId, timeS, tokens, signature] = array(item, 'receipt', 5)
      bytes(signer, 'signer', 32)
      require(bytes(jobId, 'job_id').length <= 64, 'job_id: too long')
      uint(timeS, 'time_s', 32)
      uint(tokens, 'tokens', 48)
      bytes(signature, 'signature', 64)
      const ascends = last === null || (Buffer.compare(signer, last[0]) || Buffer.compare(jobId, last[1])) > 0
      require(ascends, 'receipts: signers and jobs must ascend')
      last = [signer, jobId]
    }
  },
  [KIND.close] (body) {
    array(body, 'close', 0)
  }
}

/** Read what one source counted in a window of so many seconds. Returns its place: source, then instance. */
function readReading (item, windowS) {
  const [source, instance, provenance, counters, latencyMs, gapS] = array(item, 'reading', 6)
  uint(source, 'source', 8)
  uint(instance, 'instance', 8)
  require(typeof provenance === 'string' && [...provenance].length <= 128, 'provenance')
  require(Array.isArray(counters) && counters.length <= 16, 'counters')
  let last = 0
  for (const counter of counters) {
    const [unit, amount] = array(counter, 'counter', 2)
    require(uint(unit, 'unit', 8) > last, 'counters: units must ascend')
    last = unit
    uint(amount, 'amount', 48)
  }
  if (latencyMs !== null) {
    const [p50, p95, p99] = array(latencyMs, 'latency_ms', 3).map((value) => uint(value, 'latency_ms', 32))
    require(p50 <= p95 && p95 <= p99, 'latency_ms: quantiles must not descend')
  }
  require(uint(gapS, 'gap_s', 32) <= windowS, 'reading: the gap is longer than its window')
  return source * 256 + instance
}

/** Check that the signer of a receipt signed it for the log of this node key. */
function requireReceipt (pool, nodeKey, receipt) {
  const [signer, ...claim] = receipt.slice(0, 4)
  requireSignature(signer, receiptText(pool, nodeKey, signer, ...claim), receipt[4])
}

export function makeReceipt (key, pool, nodeKey, jobId, timeS, tokens) {
  const signed = receiptText(pool, nodeKey, key.public, jobId, timeS, tokens)
  return [key.public, jobId, timeS, tokens, key.sign(signed)]
}

const receiptText = (pool, nodeKey, ...claim) =>
  encode(['gpupool/receipt/1', pool.network, pool.account, nodeKey, ...claim])

function openEnvelope (wire, bytesMax) {
  const [signed, signature] = array(decode(wire, bytesMax), 'envelope', 2)
  return [bytes(signed, 'signed'), bytes(signature, 'signature', 64)]
}

function require (condition, what) {
  if (!condition) throw new InvalidMessage(what)
}

function array (value, name, length) {
  require(Array.isArray(value) && value.length === length, `${name}: expected an array of ${length}`)
  return value
}

function bytes (value, name, length = null) {
  require(value instanceof Uint8Array && (length === null || value.length === length), `${name}: expected bytes`)
  return value
}

function uint (value, name, bits) {
  const number = typeof value === 'number' || typeof value === 'bigint'
  require(number && value >= 0 && BigInt(value) < 1n << BigInt(bits), `${name}: expected ${bits} bits, unsigned`)
  return value
}

export function equal (a, b) {
  return a instanceof Uint8Array && Buffer.compare(a, b) === 0
}
