// Canonical msgpack, written from docs/wire.md: integers, booleans, byte strings, text, nil and arrays of these.
//
// Decides whether bytes are the one canonical form of a value; every byte is untrusted. A length or an integer that
// is not in its shortest form is refused where it stands. Integers beyond 2^53 are BigInts, all others are numbers.

export class InvalidMessage extends Error {
  name = 'InvalidMessage'
}

const DEPTH_MAX = 8
const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Decode canonical bytes. Throws InvalidMessage for anything else. */
export function decode (data, bytesMax) {
  if (data.length > bytesMax) throw new InvalidMessage(`${data.length} bytes, at most ${bytesMax} are allowed`)
  const reader = new Reader(data)
  const value = reader.value(DEPTH_MAX)
  if (reader.at !== data.length) throw new InvalidMessage('bytes after the value')
  return value
}

/** Encode a value: number, bigint, boolean, Uint8Array, string, null, or an array of these. */
export function encode (value) {
  const parts = []
  write(value, parts)
  return Buffer.concat(parts)
}

class Reader {
  constructor (data) {
    this.data = Buffer.from(data.buffer, data.byteOffset, data.length)
    this.at = 0
  }

  take (count) {
    if (this.at + count > this.data.length) throw new InvalidMessage('ends too early')
    this.at += count
    return this.data.subarray(this.at - count, this.at)
  }

  uint (bytes, least) {
    const value = BigInt('0x' + this.take(bytes).toString('hex'))
    if (value < least) throw new InvalidMessage('not the shortest form')
    return plain(value)
  }

  negative (bytes, most) {
    const value = BigInt.asIntN(8 * bytes, BigInt('0x' + this.take(bytes).toString('hex')))
    if (value > most) throw new InvalidMessage('not the shortest form')
    return plain(value)
  }

  value (depth) {
    const [tag] = this.take(1)
    if (tag <= 0x7f) return tag
    if (tag >= 0xe0) return tag - 0x100
    if (tag <= 0x8f) throw new InvalidMessage('a map')
    if (tag <= 0x9f) return this.array(tag & 0x0f, depth)
    if (tag <= 0xbf) return this.text(tag & 0x1f)
    switch (tag) {
      case 0xc0: return null
      case 0xc2: return false
      case 0xc3: return true
      case 0xc4: return this.take(this.uint(1, 0n))
      case 0xc5: return this.take(this.uint(2, 1n << 8n))
      case 0xc6: return this.take(this.uint(4, 1n << 16n))
      case 0xcc: return this.uint(1, 1n << 7n)
      case 0xcd: return this.uint(2, 1n << 8n)
      case 0xce: return this.uint(4, 1n << 16n)
      case 0xcf: return this.uint(8, 1n << 32n)
      case 0xd0: return this.negative(1, -33n)
      case 0xd1: return this.negative(2, -(1n << 7n) - 1n)
      case 0xd2: return this.negative(4, -(1n << 15n) - 1n)
      case 0xd3: return this.negative(8, -(1n << 31n) - 1n)
      case 0xd9: return this.text(this.uint(1, 32n))
      case 0xda: return this.text(this.uint(2, 1n << 8n))
      case 0xdb: return this.text(this.uint(4, 1n << 16n))
      case 0xdc: return this.array(this.uint(2, 16n), depth)
      case 0xdd: return this.array(this.uint(4, 1n << 16n), depth)
      default: throw new InvalidMessage(`type 0x${tag.toString(16)}`)
    }
  }

  array (length, depth) {
    if (depth === 0) throw new InvalidMessage(`nested deeper than ${DEPTH_MAX}`)
    const items = []
    for (let i = 0; i < length; i++) items.push(this.value(depth - 1))
    return items
  }

  text (length) {
    try {
      return text.decode(this.take(length))
    } catch (error) {
      throw error instanceof InvalidMessage ? error : new InvalidMessage('not UTF-8')
    }
  }
}

function plain (value) {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
}

function write (value, parts) {
  if (value === null) parts.push(Buffer.of(0xc0))
  else if (typeof value === 'boolean') parts.push(Buffer.of(value ? 0xc3 : 0xc2))
  else if (typeof value === 'string') {
    const bytes = Buffer.from(value)
    parts.push(head(bytes.length, [[32, 0xa0, 0], [1 << 8, 0xd9, 1], [1 << 16, 0xda, 2], [2 ** 32, 0xdb, 4]]), bytes)
  } else if (value instanceof Uint8Array) {
    parts.push(head(value.length, [[1 << 8, 0xc4, 1], [1 << 16, 0xc5, 2], [2 ** 32, 0xc6, 4]]), value)
  } else if (Array.isArray(value)) {
    parts.push(head(value.length, [[16, 0x90, 0], [1 << 16, 0xdc, 2], [2 ** 32, 0xdd, 4]]))
    for (const item of value) write(item, parts)
  } else if (value >= 0) {
    const forms = [[1 << 7, 0, 0], [1 << 8, 0xcc, 1], [1 << 16, 0xcd, 2], [2 ** 32, 0xce, 4], [1n << 64n, 0xcf, 8]]
    parts.push(head(value, forms))
  } else {
    const [bytes, tag] = value >= -32 ? [1, null] : value >= -128 ? [1, 0xd0] : value >= -(1 << 15) ? [2, 0xd1]
      : value >= -(2 ** 31) ? [4, 0xd2] : [8, 0xd3]
    if (tag !== null) parts.push(Buffer.of(tag))
    parts.push(bigEndian(BigInt.asUintN(8 * bytes, BigInt(value)), bytes))
  }
}

/** The shortest of these forms: [values below this, tag, bytes that follow it; none: the tag holds the value]. */
function head (value, forms) {
  const [, tag, bytes] = forms.find(([limit]) => value < limit)
  return bytes === 0 ? Buffer.of(tag + Number(value)) : Buffer.concat([Buffer.of(tag), bigEndian(BigInt(value), bytes)])
}

function bigEndian (value, bytes) {
  return Buffer.from(value.toString(16).padStart(2 * bytes, '0'), 'hex')
}
