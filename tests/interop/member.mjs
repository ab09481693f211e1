// What a member of the pool holds, and how it answers: logs as hash chains, attachments, messages of one close, and
// where the others say that they can be dialled.

import { encode, InvalidMessage } from './canonical.mjs'
import { equal, hex, KIND, makeRecord, parseAddress, parseMessage, parseRecord, parseRequest, sha256 } from './wire.mjs'

const ADDRESS_RANGES = 256
const GENESIS = { seq: 0, hash: Buffer.alloc(32) }

export class Member {
  constructor (key, pool, participants) {
    this.key = key
    this.pool = pool
    this.logs = new Map(participants.map((nodeKey) => [nodeKey, []]))
    this.attachments = new Map()
    this.messages = { observation: new Map(), proposal: new Map(), attest: new Map() }
    this.addresses = new Map()
    this.served = {}
  }

  head (nodeKey) {
    return this.logs.get(nodeKey).at(-1) ?? GENESIS
  }

  /** Verify a record and place it on its chain. Returns whether it was new and had its predecessor. */
  takeRecord (wire) {
    const record = parseRecord(wire, this.pool)
    const log = this.logs.get(hex(record.nodeKey))
    if (log === undefined) throw new InvalidMessage('record: no participant has this key')
    const head = log.at(-1) ?? GENESIS
    if (record.seq !== head.seq + 1) return false
    if (!equal(record.prevHash, head.hash)) throw new InvalidMessage('record: does not follow its predecessor')
    log.push(record)
    return true
  }

  takeMessage (kind, wire) {
    const message = parseMessage(kind, wire, this.pool)
    this.messages[kind].set(hex(message.digest), message)
    return message
  }

  /** Keep an address record if it is the newest of its key. */
  takeAddress (wire) {
    const record = parseAddress(wire, this.pool)
    const held = this.addresses.get(hex(record.nodeKey))
    if (held === undefined || held.issuedS < record.issuedS) this.addresses.set(hex(record.nodeKey), record)
  }

  /** What is held of the address records: 8 bytes for each first byte of a key, zeros where there is none. */
  addressDigests () {
    return Buffer.concat(Array.from({ length: ADDRESS_RANGES }, (_, first) => {
      const held = this.addressesOf(first)
      return held.length === 0 ? Buffer.alloc(8) : sha256(Buffer.concat(held.map(({ digest }) => digest))).subarray(0, 8)
    }))
  }

  addressesOf (first) {
    const keys = [...this.addresses.keys()].filter((nodeKey) => parseInt(nodeKey.slice(0, 2), 16) === first).sort()
    return keys.map((nodeKey) => this.addresses.get(nodeKey))
  }

  /** Make the next record of the own log. */
  append (kind, body) {
    const head = this.head(hex(this.key.public))
    const record = makeRecord(this.key, this.pool, head.seq + 1, head.hash, kind, body)
    this.logs.get(hex(this.key.public)).push(record)
    return record
  }

  /** An evidence record that names an attachment, which this member serves. */
  appendEvidence (timeS) {
    const collateral = Buffer.from('collateral of the other implementation')
    const digest = sha256(collateral)
    this.attachments.set(hex(digest), collateral)
    return this.append(KIND.evidence, [Buffer.from('quote'), [digest, null, null], [1, Buffer.alloc(32), timeS]])
  }

  appendWork (startS, evidence) {
    const engine = [1, 0, 'vllm', [[1, 500], [2, 500], [4, 10], [5, 0]], [100, 200, 300], 0]
    const gpus = [3, 0, 'nvml', [[6, 9000], [7, 5000]], null, 10]
    return this.append(KIND.work, [startS, startS + 10, [engine, gpus], evidence])
  }

  heads () {
    const keys = [...this.logs.keys()].sort()
    return keys.map((nodeKey) => [Buffer.from(nodeKey, 'hex'), this.head(nodeKey).seq, this.head(nodeKey).hash])
  }

  /** The heads in each of so many ranges of keys. */
  headRanges (ranges) {
    return Array.from({ length: ranges }, (_, range) => this.heads().filter(([key]) => key[0] * ranges >> 8 === range))
  }

  /** What is held of the logs: 8 bytes for each range of keys, zeros where there is no log. */
  headDigests (ranges) {
    return Buffer.concat(this.headRanges(ranges).map((heads) => {
      const parts = heads.flatMap(([nodeKey, seq, hash]) => [nodeKey, bigEndian(seq), hash])
      return parts.length === 0 ? Buffer.alloc(8) : sha256(Buffer.concat(parts)).subarray(0, 8)
    }))
  }

  /** All messages of the close, with the 8 bytes by which a peer says that it holds one. */
  closeMessages () {
    return Object.entries(this.messages).flatMap(([kind, held]) => [...held.values()].map((message) => {
      return { kind, message, id: (kind === 'attest' ? sha256(message.wire) : message.digest).subarray(0, 8) }
    }))
  }

  /** The response to one request; throws for one that is malformed. */
  answer (request) {
    const [name, value] = parseRequest(request, 1024 * 1024)
    this.served[name] = (this.served[name] ?? 0) + 1
    switch (name) {
      case 'watermarks': {
        const mine = this.headDigests(value.length / 8)
        return encode(this.headRanges(value.length / 8).filter((_, range) => differ(value, mine, range)).flat())
      }
      case 'records':
        return encode(value.flatMap(([nodeKey, first, last]) =>
          (this.logs.get(hex(nodeKey)) ?? []).filter(({ seq }) => first <= seq && seq <= last).map(({ wire }) => wire)))
      case 'object': {
        const [kind, id] = value
        const held = kind === 'attachment' ? this.attachments.get(hex(id)) : this.messages[kind]?.get(hex(id))?.wire
        return encode(held ?? null)
      }
      case 'close': {
        const have = hex(value[1]).match(/.{16}/g) ?? []
        const lacking = this.closeMessages().filter(({ id }) => !have.includes(hex(id)))
        const of = (name, part) => lacking.filter(({ kind }) => kind === name).map(({ message }) => message[part])
        return encode([of('observation', 'digest'), of('proposal', 'wire'), of('attest', 'wire')])
      }
      case 'ping':
        return encode(value)
      case 'addresses': {
        const [first, theirs, own] = value
        if (own !== null) this.takeAddress(own)
        const mine = this.addressDigests()
        const ranges = Array.from({ length: ADDRESS_RANGES }, (_, range) => range)
        const wanted = ranges.filter((range) => range >= first && differ(mine, theirs, range))
        const wires = wanted.flatMap((range) => this.addressesOf(range).map(({ wire }) => wire))
        return encode([ADDRESS_RANGES, wires])
      }
      default:
        throw new InvalidMessage(`request: ${name} is unknown`)
    }
  }
}

/** Whether two lists of digests, 8 bytes each, differ in this one. */
function differ (mine, theirs, range) {
  return !equal(mine.subarray(8 * range, 8 * range + 8), theirs.subarray(8 * range, 8 * range + 8))
}

function bigEndian (seq) {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(seq))
  return bytes
}
