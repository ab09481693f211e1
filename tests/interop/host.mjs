// A js-libp2p host as the pool expects one: TCP, Noise, Yamux, GossipSub 1.1, identify, ping.

import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'

// js-libp2p 3 is written for Node 22, which brought this; the rest of it runs under Node 20.
Promise.withResolvers ??= function () {
  const deferred = {}
  deferred.promise = new Promise((resolve, reject) => Object.assign(deferred, { resolve, reject }))
  return deferred
}

/**
 * Open a host that listens on loopback. `settings` are added to those of GossipSub.
 *
 * One of them has to differ from the library's own: the id of a message is its sender's peer id and its number, as the
 * specification has it. By default this library takes the key's protobuf instead of the peer id, and so its IHAVE and
 * IWANT would name messages that nobody else knows.
 */
export async function openHost (seed, settings = {}) {
  return createLibp2p({
    privateKey: await generateKeyPairFromSeed('Ed25519', seed),
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: {
      identify: identify(),
      ping: ping(),
      pubsub: gossipsub({ fallbackToFloodsub: false, msgIdFn: messageId, ...settings })
    }
  })
}

function messageId (message) {
  const number = Buffer.alloc(8)
  number.writeBigUInt64BE(message.sequenceNumber)
  return Buffer.concat([message.from.toMultihash().bytes, number])
}

/** The Ed25519 node key (32 bytes) inside a peer id. */
export function nodeKeyOf (peerId) {
  return Buffer.from(peerId.publicKey.raw)
}
