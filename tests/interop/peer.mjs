// A member of the pool on js-libp2p, told what to do by lines of JSON on stdin: node peer.mjs '{"seed": ...}'.
//
// Each line is {"do": name, ...}; the answer is one line, {"result": ...} or {"error": text}. Bytes are hex.
// What arrives by gossip or on a stream is verified by `wire.mjs`; nothing of the Python packages is used.

import readline from 'node:readline'
import { multiaddr } from '@multiformats/multiaddr'
import { decode, encode } from './canonical.mjs'
import { ask, serve } from './frames.mjs'
import { openHost, nodeKeyOf } from './host.mjs'
import { Member } from './member.mjs'
import {
  encodeGossip, encodeRequest, hex, makeAddress, makeMessage, makeReceipt, parseGossip, parseMessage, parseRecord,
  SigningKey, topic
} from './wire.mjs'

const settings = JSON.parse(process.argv[2])
const unhex = (text) => Buffer.from(text, 'hex')
const key = new SigningKey(unhex(settings.seed))
const pool = { network: settings.network, account: unhex(settings.account) }
const member = new Member(key, pool, settings.participants)
const node = await openHost(unhex(settings.seed), settings.gossipsub)
const pubsub = node.services.pubsub
const gossip = { invalid: [], placed: 0, late: 0 }
const TOPIC = topic(pool)
const HEAD_RANGES = 4

pubsub.addEventListener('message', ({ detail }) => {
  try {
    const { kind, wire } = parseGossip(detail.data)
    if (kind === 'address') member.takeAddress(wire)
    else if (kind !== 'record') member.takeMessage(kind, wire)
    else if (member.takeRecord(wire)) gossip.placed++
    else gossip.late++
  } catch (error) {
    gossip.invalid.push(error.message)
  }
})
pubsub.subscribe(TOPIC)
await serve(node, (request) => member.answer(request))

const commands = {
  address: () => String(node.getMultiaddrs()[0]),
  dial: async ({ address }) => hex(nodeKeyOf((await node.dial(multiaddr(address))).remotePeer)),
  ping: ({ peer }) => node.services.ping.ping(idOf(peer)),
  protocols: async ({ peer }) => (await node.peerStore.get(idOf(peer))).protocols,
  mesh: () => pubsub.getMeshPeers(TOPIC).length,
  subscribers: () => pubsub.getSubscribers(TOPIC).length,
  state: () => ({
    heads: member.heads().map(([nodeKey, seq, hash]) => [hex(nodeKey), seq, hex(hash)]),
    observations: [...member.messages.observation.keys()],
    proposals: [...member.messages.proposal.keys()],
    attests: [...member.messages.attest.values()].map(({ operator, fields }) => [hex(operator), hex(fields[1])]),
    served: member.served,
    gossip
  }),
  canonical: ({ data }) => hex(encode(decode(unhex(data), 1 << 20))),
  record: ({ wire }) => {
    const { hash, again } = parseRecord(unhex(wire), pool)
    return [hex(hash), hex(again)]
  },
  // How many receipts a record has; or one of our own, for another's log.
  receipts: ({ wire }) => parseRecord(unhex(wire), pool).body[0].length,
  receipt: ({ node_key: nodeKey, job_id: jobId, time_s: timeS, tokens }) =>
    hex(makeReceipt(key, pool, unhex(nodeKey), unhex(jobId), timeS, tokens)[4]),
  message: ({ kind, wire }) => {
    const { digest, again } = parseMessage(kind, unhex(wire), pool)
    return [hex(digest), hex(again)]
  },
  // Evidence and so many windows of work from `start_s` on; told to the topic unless `quiet`.
  work: async ({ windows, start_s: startS, quiet }) => {
    const log = member.logs.get(hex(key.public))
    const made = log.length === 0 ? [member.appendEvidence(startS - 1000)] : []
    for (let i = 0; i < windows; i++) made.push(member.appendWork(startS + 10 * i, log[0].hash))
    if (!quiet) for (const { wire } of made) await publish('record', wire)
    return made.map(({ hash }) => hex(hash))
  },
  // An observation of the logs that are held here; told whole, or by a notice of it.
  observe: async ({ epoch, set_id: setId, policy_hash: policyHash, base, witnessed_s: seconds, notice }) => {
    const logs = member.heads().map(([nodeKey, seq, hash]) => [nodeKey, seq, hash, seconds, null])
    const made = makeMessage('observation', key, pool, [epoch, setId, unhex(policyHash), unhex(base), logs, []])
    member.messages.observation.set(hex(made.digest), made)
    await (notice ? publish('notice', encode([epoch, made.digest])) : publish('observation', made.wire))
    return hex(made.digest)
  },
  // A vote for a certificate. The totals behind it are not computed here: this shows the wire, not the tally.
  attest: async ({ epoch, cert_hash: certHash }) => {
    const made = makeMessage('attest', key, pool, [epoch, unhex(certHash), key.sign(unhex(certHash))])
    member.messages.attest.set(hex(made.digest), made)
    await publish('attest', made.wire)
  },
  gossip: ({ data }) => pubsub.publish(TOPIC, unhex(data)).then(({ recipients }) => recipients.length),
  // One request as bytes, for those that are malformed.
  send: async ({ peer, request }) => hex(await ask(node, idOf(peer), unhex(request))),
  // All heads of a peer (no digest is zeros), or those in ranges that differ from what is held here.
  watermarks: async ({ peer, all }) => {
    const digests = all ? Buffer.alloc(8) : member.headDigests(HEAD_RANGES)
    const theirs = decode(await request(peer, 'watermarks', digests), 1 << 22)
    return theirs.map(([nodeKey, seq, hash]) => [hex(nodeKey), seq, hex(hash)])
  },
  probe: async ({ peer, nonce }) => hex(decode(await request(peer, 'ping', unhex(nonce)), 64)),
  announce: async ({ issued_s: issuedS, addresses }) => {
    const { wire } = makeAddress(key, pool, issuedS, addresses)
    member.takeAddress(wire)
    await publish('address', wire)
  },
  // Fetch the address records that differ; returns how many came, and of whom records are held now.
  find: async ({ peer }) => {
    const own = member.addresses.get(hex(key.public))?.wire ?? null
    const [, wires] = decode(await request(peer, 'addresses', [0, member.addressDigests(), own]), 1 << 22)
    wires.forEach((wire) => member.takeAddress(wire))
    return [wires.length, [...member.addresses.keys()].sort()]
  },
  // Fetch what a peer has more of, and place it; returns how many records that were.
  sync: async ({ peer }) => {
    const theirs = decode(await request(peer, 'watermarks', member.headDigests(HEAD_RANGES)), 1 << 22)
    const ranges = theirs.map(([nodeKey, seq]) => [nodeKey, member.head(hex(nodeKey)).seq + 1, seq])
    const wanted = ranges.filter(([, first, last]) => first <= last)
    const wires = decode(await request(peer, 'records', wanted), 1 << 22)
    return wires.filter((wire) => member.takeRecord(wire)).length
  },
  object: async ({ peer, kind, id }) => {
    const data = decode(await request(peer, 'object', [kind, unhex(id)]), 1 << 22)
    return data === null ? null : hex(data)
  },
  close: async ({ peer, epoch, all }) => {
    const have = all ? Buffer.alloc(0) : Buffer.concat(member.closeMessages().map(({ id }) => id))
    const [observations, proposals, attests] = decode(await request(peer, 'close', [epoch, have]), 1 << 22)
    proposals.forEach((wire) => member.takeMessage('proposal', wire))
    attests.forEach((wire) => member.takeMessage('attest', wire))
    return { observations: observations.map(hex), proposals: proposals.length, attests: attests.length }
  }
}

function idOf (nodeKey) {
  return node.getPeers().find((peer) => hex(nodeKeyOf(peer)) === nodeKey)
}

async function publish (kind, wire) {
  await pubsub.publish(TOPIC, encodeGossip(kind, wire))
}

async function request (peer, name, value) {
  return ask(node, idOf(peer), encodeRequest(name, value))
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { do: name, ...values } = JSON.parse(line)
  const answer = await Promise.resolve().then(() => commands[name](values)).then(
    (result) => ({ result: result ?? null }), (error) => ({ error: `${error.name}: ${error.message}` }))
  process.stdout.write(JSON.stringify(answer) + '\n')
}
await node.stop()
process.exit(0)
