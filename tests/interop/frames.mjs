// Requests on a stream of their own: both directions are one frame, 4 bytes of length (big-endian), then the bytes.

import { byteStream } from '@libp2p/utils'
import { RESPONSE_BYTES_MAX } from './wire.mjs'

export const PROTOCOL = '/gpupool/sync/1'
const REQUEST_BYTES_MAX = 128 * 1024
const PATIENCE_MS = 10_000

/** Send one request to a connected peer (a peer id) and return its response; throws if the stream is reset. */
export async function ask (node, peer, request) {
  const signal = AbortSignal.timeout(PATIENCE_MS)
  const [connection] = node.getConnections(peer)
  const stream = await connection.newStream(PROTOCOL, { signal })
  try {
    const bytes = byteStream(stream, { maxBufferSize: RESPONSE_BYTES_MAX + 4 })
    await bytes.write(frame(request), { signal })
    await stream.close({ signal }) // the writing end only
    return await read(bytes, RESPONSE_BYTES_MAX, signal)
  } catch (error) {
    stream.abort(error)
    throw error
  }
}

/** Answer requests of any peer by `answer(request)`; if it throws, the stream is reset. */
export async function serve (node, answer) {
  await node.handle(PROTOCOL, async (stream) => {
    const signal = AbortSignal.timeout(PATIENCE_MS)
    try {
      const bytes = byteStream(stream, { maxBufferSize: REQUEST_BYTES_MAX + 4 })
      const response = await answer(await read(bytes, REQUEST_BYTES_MAX, signal))
      await bytes.write(frame(response), { signal })
      await stream.close({ signal })
    } catch (error) {
      stream.abort(error)
    }
  })
}

function frame (data) {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(data.length)
  return Buffer.concat([length, data])
}

async function read (bytes, bytesMax, signal) {
  const length = Buffer.from((await bytes.read({ bytes: 4, signal })).subarray()).readUInt32BE()
  if (length > bytesMax) throw new Error(`a frame of ${length} bytes`)
  return length === 0 ? Buffer.alloc(0) : Buffer.from((await bytes.read({ bytes: length, signal })).subarray())
}
