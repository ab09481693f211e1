// One process of the mesh that benchmarks/gossip.py measures, on js-libp2p; it speaks as gossip_node.py does.

import { createHash } from 'node:crypto'
import readline from 'node:readline'
import { multiaddr } from '../tests/interop/node_modules/@multiformats/multiaddr/dist/src/index.js'
import { nodeKeyOf, openHost } from '../tests/interop/host.mjs'

const TOPIC = 'gpupool/benchmark'
const CONNECT_TIMEOUT_MS = 30_000
const STRAGGLERS_MS = 3000
const number = Number(process.argv[2])
const node = await openHost(createHash('sha256').update(String(number)).digest())
const pubsub = node.services.pubsub
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const next = async () => JSON.parse((await lines.next()).value)
const say = (value) => process.stdout.write(JSON.stringify(value) + '\n')
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const sleepUntil = (timeNs) => sleep(Math.max(0, Number(timeNs - process.hrtime.bigint()) / 1e6))

const sent = []
const received = []
pubsub.addEventListener('message', ({ detail }) => {
  const sentNs = Buffer.from(detail.data).readBigUInt64BE()
  received.push([sentNs, Number(process.hrtime.bigint() - sentNs) / 1e6])
})
pubsub.subscribe(TOPIC)

const address = String(node.getMultiaddrs()[0])
say([nodeKeyOf(node.peerId).toString('hex'), address])
const addresses = (await next()).map(([, other]) => other)
const limit = setTimeout(() => { throw new Error('not connected in time') }, CONNECT_TIMEOUT_MS)
for (const other of addresses.slice(0, addresses.indexOf(address))) await dial(multiaddr(other))
while (pubsub.getSubscribers(TOPIC).length < addresses.length - 1) await sleep(100)
clearTimeout(limit)
say('connected')

const { per_s: perS, size, from_ns: fromNs, until_ns: untilNs } = await next()
const [from, until] = [BigInt(fromNs), BigInt(untilNs)]
await sleep(Math.random() / perS * 1000)
const publishing = publish()
await sleepUntil(from)
const before = process.cpuUsage()
await sleepUntil(until)
const { user, system } = process.cpuUsage(before)
await publishing
await sleep(STRAGGLERS_MS)
const counted = (sentNs) => from <= sentNs && sentNs < until
say({
  sent: sent.filter(counted).length,
  latencies_ms: received.filter(([sentNs]) => counted(sentNs)).map(([, ms]) => ms),
  cpu_s: (user + system) / 1e6
})
await lines.next()
process.exit(0)

/** Dial until it is let in: by its own settings this library takes five connections a second from one address. */
async function dial (other) {
  try {
    await node.dial(other)
  } catch {
    await sleep(500 + 500 * Math.random())
    await dial(other)
  }
}

async function publish () {
  const periodNs = BigInt(Math.round(1e9 / perS))
  for (let due = process.hrtime.bigint(); due < until; due += periodNs) {
    await sleepUntil(due)
    const message = Buffer.alloc(size)
    const now = process.hrtime.bigint()
    message.writeBigUInt64BE(now)
    message.writeUInt32BE(number, 8)
    sent.push(now)
    await pubsub.publish(TOPIC, message)
  }
}
