// Replays a scenario (tests/contracts/replay.py) in @ton/sandbox and compares everything that it states:
// every transaction's account, exit code and gas; after each step every contract's data and balance. What a step
// gives plain values for is computed here anew (encoding.mjs) and must be the very message that was recorded.
//
//   node replay.mjs scenario.json      exit code 1 and the first difference, or a line that counts what was equal
import { readFileSync } from "node:fs";
import { Address, Cell, internal, loadStateInit } from "@ton/core";
import { Blockchain } from "@ton/sandbox";
import { certificate, claimBody, proof, pushBody, settlePayload, submitBody, totalsRoot } from "./encoding.mjs";

const cell = (text) => Cell.fromBase64(text);
const counted = { steps: 0, transactions: 0, states: 0, computed: 0 };

function same(what, here, recorded) {
  if (String(here) !== String(recorded)) {
    throw new Error(`${what}: ${here} here, ${recorded} recorded`);
  }
}

// The message of a step from its plain values, or null where it has none.
function computed(step) {
  if (step.settlement !== undefined) {
    const { domain, payload, leaves, signers, totals_root, certificate_hash } = step.settlement;
    same("totals root", totalsRoot(leaves).toString("hex"), totals_root);
    const signed = certificate(domain, settlePayload(payload, leaves));
    same("certificate hash", signed.hash().toString("hex"), certificate_hash);
    return submitBody(signed, signers);
  }
  if (step.claim !== undefined) {
    return claimBody(step.claim.participant, proof(step.claim.leaves, [step.claim.participant]));
  }
  if (step.push !== undefined) {
    return pushBody(step.push.participants, proof(step.push.leaves, step.push.participants));
  }
  return null;
}

async function replay(blockchain, step) {
  const body = cell(step.body);
  const own = computed(step);
  if (own !== null) {
    same("body", own.hash().toString("hex"), body.hash().toString("hex"));
    counted.computed += 1;
  }
  blockchain.now = step.now;
  const message = internal({
    to: Address.parse(step.dest),
    value: BigInt(step.value),
    bounce: true,
    init: step.state_init === null ? undefined : loadStateInit(cell(step.state_init).beginParse()),
    body: own ?? body,
  });
  message.info.src = Address.parse(step.source);
  const { transactions } = await blockchain.sendMessage(message);
  same("number of transactions", transactions.length, step.transactions.length);
  transactions.forEach((transaction, i) => compare(transaction, step.transactions[i], `transaction ${i}`));
  for (const [address, recorded] of Object.entries(step.accounts)) {
    const account = await blockchain.getContract(Address.parse(address));
    same(`data of ${address}`, account.accountState.state.data.hash().toString("hex"), recorded.data_hash);
    same(`balance of ${address}`, account.balance, recorded.balance);
    counted.states += 1;
  }
  counted.steps += 1;
  counted.transactions += transactions.length;
}

function compare(transaction, recorded, what) {
  const account = new Address(0, Buffer.from(transaction.address.toString(16).padStart(64, "0"), "hex"));
  const phase = transaction.description.computePhase;
  const ran = phase.type === "vm";
  same(`${what}, account`, account.toRawString(), recorded.account);
  same(`${what}, exit code`, ran ? phase.exitCode : null, recorded.exit_code);
  same(`${what}, gas`, ran ? phase.gasUsed : 0, recorded.gas);
}

const scenario = JSON.parse(readFileSync(process.argv[2], "utf8"));
const blockchain = await Blockchain.create({ config: cell(scenario.config) });
for (const [i, step] of scenario.steps.entries()) {
  try {
    await replay(blockchain, step);
  } catch (error) {
    console.error(`step ${i} (${step.name ?? "unnamed"}): ${error.message}`);
    process.exit(1);
  }
}
console.log(
  `equal in both implementations: ${counted.steps} messages, ${counted.transactions} transactions, ` +
    `${counted.states} states and balances, ${counted.computed} messages computed anew`,
);
