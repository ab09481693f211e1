"""Numbers of the contracts: ops, events, kinds of command, refusals. Written by `make codes`; change `codes.toml`.

`describe_exit` and `explain_exit` turn an exit code that a transaction shows into a name for a log and a
sentence for a screen.

Source: `contracts/codes.toml`, `contracts/schema.tlb`; TON documentation "TVM exit codes" for the codes below 128.
"""

from __future__ import annotations

from enum import IntEnum


class Op(IntEnum):
    """First 32 bits of a message body: crc32 of the name in lower case, without its highest bit."""

    POOL_INIT = 0x40DAF533
    POOL_ENABLE_QUORUM = 0x1FEA3236
    POOL_OWNER_COMMAND = 0x57236C86
    POOL_REGISTER_PARTICIPANT = 0x3ADB4D2F
    POOL_SUBMIT_CERTIFICATE = 0x4B7A4987
    POOL_APPLY_PARAMS = 0x5DD19644
    POOL_APPLY_UPGRADE = 0x62314DAD
    POOL_GUARDIAN_PAUSE = 0x1A71E3CB
    POOL_SYNC_COUNTERS = 0x519CAA32
    POOL_EPOCH_SETTLED = 0x01129C91
    REGISTRY_CONFIGURE = 0x1C63A839
    REGISTRY_ADD_PARTICIPANT = 0x135BDFDB
    REGISTRY_SET_EPOCH_ROOT = 0x68ED0646
    DISTRIBUTION_UPDATE_TERMS = 0x63E8CE42
    POOL_RELAY_CERTIFICATE = 0x0AA07B1F
    POOL_UPGRADE_CHILD = 0x0D579F80
    REGISTRY_INCREASE_STAKE = 0x4131BCED
    REGISTRY_REQUEST_WITHDRAWAL = 0x2CF9DC6D
    REGISTRY_CANCEL_WITHDRAWAL = 0x61419D5C
    REGISTRY_HEARTBEAT = 0x592E7B59
    REGISTRY_UPDATE_WORKER_ADDRESS = 0x69366DF5
    REGISTRY_ROTATE_NODE_KEY = 0x3432BE64
    REGISTRY_COMPLETE_WITHDRAWAL = 0x03BB5B17
    REGISTRY_SWEEP_SLASHED = 0x4304E2E1
    REGISTRY_UPDATE_CONTRIBUTION = 0x67ACA681
    REGISTRY_STAKE_RETURNED = 0x4DADE045
    DISTRIBUTION_RECEIVE_SLASHED = 0x2AD97027
    DISTRIBUTION_RECEIVE_PAYMENT = 0x3162DF77
    DISTRIBUTION_FINALIZE_EPOCH = 0x53994C82
    DISTRIBUTION_CLAIM_REWARDS = 0x44345C00
    DISTRIBUTION_EXECUTE_BATCH = 0x1101959C
    # Numbers that others have given.
    PAYOUT = 0xC59A7CD3
    COCOON_EXCESSES = 0x2565934C
    EXCESSES = 0xD53276DB
    TOP_UP = 0xD372158C


FOREIGN_OPS = frozenset({Op.PAYOUT, Op.COCOON_EXCESSES, Op.EXCESSES, Op.TOP_UP})
"""Ops whose number is not the crc32 of a name of ours: Cocoon's payout and excesses, TEP-74's, the usual top-up."""


class Event(IntEnum):
    """First 32 bits of an external log message; numbered like an op."""

    EVENT_POOL_INITIALISED = 0x7C712FB0
    EVENT_QUORUM_ENABLED = 0x5E13E7E4
    EVENT_PROPOSED = 0x13BE3094
    EVENT_PROPOSAL_CANCELLED = 0x7681C095
    EVENT_SET_ACCEPTED = 0x25E72780
    EVENT_PARAMS_APPLIED = 0x347D90EB
    EVENT_UPGRADE_APPLIED = 0x12739343
    EVENT_POOL_PAUSED = 0x38B0E285
    EVENT_POOL_RESUMED = 0x341A143B
    EVENT_POOL_CLOSED = 0x7AC6E1FA
    EVENT_REGISTRATION_SET = 0x44868322
    EVENT_METADATA_UPDATED = 0x72FAA5C7
    EVENT_EPOCH_FINALIZED = 0x38B269C8
    EVENT_EPOCH_SETTLED = 0x70D42CB0
    EVENT_REWARDS_CLAIMED = 0x42F0FBAA
    EVENT_BATCH_DISTRIBUTED = 0x4C7C1236
    EVENT_FEES_WITHDRAWN = 0x7F114729
    EVENT_OWNER_MESSAGE_SENT = 0x2DACBB2E
    EVENT_SLASHED_RECEIVED = 0x7B56D1EB
    EVENT_TERMS_UPDATED = 0x7D19C825
    EVENT_PARTICIPANT_REGISTERED = 0x09284B65
    EVENT_STAKE_INCREASED = 0x06643C0B
    EVENT_WITHDRAWAL_REQUESTED = 0x09B94D47
    EVENT_WITHDRAWAL_CANCELLED = 0x681EAD2F
    EVENT_WITHDRAWAL_COMPLETED = 0x2B130A86
    EVENT_PARTICIPANT_REMOVED = 0x533942E0
    EVENT_PARTICIPANT_SLASHED = 0x1BC693C0
    EVENT_SLASH_CANCELLED = 0x124CDC08
    EVENT_SLASHED_SWEPT = 0x0E2F281B
    EVENT_REPUTATION_UPDATED = 0x33BE1435
    EVENT_STATUS_CHANGED = 0x7467FC0C
    EVENT_WORKER_UPDATED = 0x2D305BC9
    EVENT_NODE_KEY_ROTATED = 0x1591E3AA
    EVENT_CONTRIBUTION_COUNTED = 0x74456E54


class CertificateKind(IntEnum):
    """First byte of what a certificate, or before the hand-over the owner, commands."""

    SETTLE = 0x01
    SLASH = 0x02
    CANCEL_SLASH = 0x03
    REPUTATION = 0x04
    REMOVE = 0x05
    SUSPEND = 0x06
    PROPOSE_SET = 0x10
    ACCEPT_SET = 0x11
    PROPOSE_PARAMS = 0x12
    PAUSE = 0x13
    RESUME = 0x14
    CLOSE = 0x15
    PROPOSE_UPGRADE = 0x16
    CANCEL = 0x17
    FEES_TO = 0x18
    OWNER_MESSAGE = 0x19
    REGISTRATION = 0x1A
    METADATA = 0x1B


class Refusal(IntEnum):
    """Exit codes of our own: why a contract refuses a message."""

    NOT_OWNER = 150
    NOT_POOL = 151
    NOT_INITIALISED = 152
    ALREADY_INITIALISED = 153
    INSUFFICIENT_VALUE = 154
    WRONG_WORKCHAIN = 155
    INVALID_PARAMS = 156
    UNDERFUNDED = 157
    NOT_CHILD = 158
    NOT_GUARDIAN = 159
    INVALID_METADATA = 160
    WRONG_DESTINATION = 161
    ALREADY_REGISTERED = 201
    NODE_KEY_TAKEN = 202
    STAKE_BELOW_MINIMUM = 203
    POOL_FULL = 204
    REGISTRATION_CLOSED = 205
    NOT_REGISTERED = 206
    NOT_POSSESSED = 207
    WRONG_SEQNO = 208
    NOTHING_STAKED = 209
    OVER_STAKE = 210
    NO_WITHDRAWAL = 211
    WITHDRAWAL_LOCKED = 212
    SUSPENDED = 213
    NOTHING_HELD = 214
    STILL_HELD = 215
    HOLD_OVER = 216
    CONTRIBUTIONS_PAUSED = 217
    INVALID_REPUTATION = 218
    EPOCH_UNKNOWN = 219
    CONTRIBUTION_COUNTED = 220
    EPOCH_SKIPPED = 221
    ROTATED_LATELY = 222
    EPOCH_RUNNING = 301
    TOO_MANY_OPEN_EPOCHS = 302
    ALREADY_SETTLED = 303
    EPOCH_OUT_OF_ORDER = 304
    EPOCH_NOT_FINALIZED = 305
    WRONG_PREV = 306
    TOTAL_SHRINKS = 307
    TOTAL_OVER_POT = 308
    INCONSISTENT_TOTALS = 309
    NOT_PINNED_SET = 310
    QUORUM_NOT_ENABLED = 401
    QUORUM_ALREADY_ENABLED = 402
    WRONG_NETWORK = 403
    WRONG_POOL = 404
    WRONG_SET = 405
    EXPIRED = 406
    UNKNOWN_KIND = 407
    TOO_MANY_SIGNERS = 408
    SIGNERS_UNSORTED = 409
    UNKNOWN_SIGNER = 410
    BAD_SIGNATURE = 411
    NO_QUORUM = 412
    WRONG_POLICY = 413
    INVALID_SET = 414
    MALFORMED_CERTIFICATE = 415
    NOT_A_PROOF = 501
    WRONG_ROOT = 502
    NO_LEAF = 503
    NOTHING_TO_PAY = 504
    CLAIMS_OVER_TOTAL = 505
    TOO_MANY_PAYOUTS = 506
    NOT_AUTOMATIC = 507
    NOTHING_PENDING = 508
    WRONG_GOV_SEQNO = 601
    TOO_EARLY = 602
    NOTHING_PROPOSED = 603
    WRONG_PROPOSAL = 604
    POOL_PAUSED = 605
    POOL_CLOSED = 606
    ALREADY_PAUSED = 607
    UNKNOWN_TARGET = 608
    UNKNOWN_OP = 65535


MEANINGS = {
    Refusal.NOT_OWNER: "only the pool's owner may, and only before the hand-over",
    Refusal.NOT_POOL: "a child takes this from its pool alone",
    Refusal.NOT_INITIALISED: "the owner has not initialised the pool yet",
    Refusal.ALREADY_INITIALISED: "pool_init works once",
    Refusal.INSUFFICIENT_VALUE: "the message brings less TON than the operation may cost",
    Refusal.WRONG_WORKCHAIN: "everybody takes part from workchain 0",
    Refusal.INVALID_PARAMS: "a parameter is out of its range",
    Refusal.UNDERFUNDED: "the contract would hold less than it owes",
    Refusal.NOT_CHILD: "the pool takes this from that child alone",
    Refusal.NOT_GUARDIAN: "only the guardian may, and only while the parameters let it",
    Refusal.INVALID_METADATA: "a text of the metadata is too long or not plain",
    Refusal.WRONG_DESTINATION: "the pool's own contracts take no message from it as a worker's owner",
    Refusal.ALREADY_REGISTERED: "this owner has an entry already",
    Refusal.NODE_KEY_TAKEN: "another entry has this node key",
    Refusal.STAKE_BELOW_MINIMUM: "the stake would be below the pool's minimum, and not zero",
    Refusal.POOL_FULL: "the pool has as many participants as it takes",
    Refusal.REGISTRATION_CLOSED: "the pool takes no participants now",
    Refusal.NOT_REGISTERED: "this owner has no entry",
    Refusal.NOT_POSSESSED: "the node key did not sign for this owner in this pool",
    Refusal.WRONG_SEQNO: "the certificate is not the next one for this entry",
    Refusal.NOTHING_STAKED: "an amount of zero",
    Refusal.OVER_STAKE: "more than what is staked and not yet asked back",
    Refusal.NO_WITHDRAWAL: "no withdrawal was asked for",
    Refusal.WITHDRAWAL_LOCKED: "the withdrawal is still locked",
    Refusal.SUSPENDED: "a suspended participant may not",
    Refusal.NOTHING_HELD: "no slashed stake is held",
    Refusal.STILL_HELD: "the slashed stake is still open to appeal",
    Refusal.HOLD_OVER: "the time to take the slash back is over",
    Refusal.CONTRIBUTIONS_PAUSED: "the pool is paused",
    Refusal.INVALID_REPUTATION: "a reputation is 0 to 1000",
    Refusal.EPOCH_UNKNOWN: "no root of this epoch is kept",
    Refusal.CONTRIBUTION_COUNTED: "this epoch, or a later one, was counted already",
    Refusal.EPOCH_SKIPPED: "only the participant itself may pass over an epoch whose root is kept",
    Refusal.ROTATED_LATELY: "the node key was replaced before, less than a withdrawal's wait ago",
    Refusal.EPOCH_RUNNING: "the epoch has not ended yet",
    Refusal.TOO_MANY_OPEN_EPOCHS: "too many epochs wait for their settlement",
    Refusal.ALREADY_SETTLED: "this epoch is settled",
    Refusal.EPOCH_OUT_OF_ORDER: "an earlier epoch is not settled yet",
    Refusal.EPOCH_NOT_FINALIZED: "the epoch's pot is not fixed yet",
    Refusal.WRONG_PREV: "it does not build on the settlement that landed",
    Refusal.TOTAL_SHRINKS: "less was earned in total than before",
    Refusal.TOTAL_OVER_POT: "more was earned than the epoch's pot",
    Refusal.INCONSISTENT_TOTALS: "root, count, score and earnings contradict each other",
    Refusal.NOT_PINNED_SET: "another operator set was in force when this epoch began",
    Refusal.QUORUM_NOT_ENABLED: "the owner runs this pool",
    Refusal.QUORUM_ALREADY_ENABLED: "the operators run this pool",
    Refusal.WRONG_NETWORK: "the certificate is for another network",
    Refusal.WRONG_POOL: "the certificate is for another pool",
    Refusal.WRONG_SET: "the certificate is of another operator set",
    Refusal.EXPIRED: "the certificate, or the proposal, is too old",
    Refusal.UNKNOWN_KIND: "no such command, or not to this contract",
    Refusal.TOO_MANY_SIGNERS: "more signatures than were announced and paid for",
    Refusal.SIGNERS_UNSORTED: "the signatures' indexes do not ascend",
    Refusal.UNKNOWN_SIGNER: "no operator has this index",
    Refusal.BAD_SIGNATURE: "a signature does not hold",
    Refusal.NO_QUORUM: "two thirds of the weight or less signed",
    Refusal.WRONG_POLICY: "another policy was in force when this epoch began",
    Refusal.INVALID_SET: "the operator set is malformed",
    Refusal.MALFORMED_CERTIFICATE: "the certificate's kind is not its payload's",
    Refusal.NOT_A_PROOF: "no Merkle proof",
    Refusal.WRONG_ROOT: "the proof is of other totals than the last two",
    Refusal.NO_LEAF: "the proof does not show this participant",
    Refusal.NOTHING_TO_PAY: "everything earned was paid",
    Refusal.CLAIMS_OVER_TOTAL: "more would be paid than was earned in total",
    Refusal.TOO_MANY_PAYOUTS: "more participants than were announced and paid for",
    Refusal.NOT_AUTOMATIC: "the pool's parameters leave distribution to claims",
    Refusal.NOTHING_PENDING: "there are no operators' fees to pay",
    Refusal.WRONG_GOV_SEQNO: "the command is not the next one of the pool",
    Refusal.TOO_EARLY: "its waiting time is not over",
    Refusal.NOTHING_PROPOSED: "nothing of this kind is proposed",
    Refusal.WRONG_PROPOSAL: "it is not what was proposed",
    Refusal.POOL_PAUSED: "the pool is paused",
    Refusal.POOL_CLOSED: "the pool is closed",
    Refusal.ALREADY_PAUSED: "the guardian paused once; a resume by certificate gives it back",
    Refusal.UNKNOWN_TARGET: "no such contract of the pool",
    Refusal.UNKNOWN_OP: "no such operation",
}
"""What each refusal means to who sent the message."""

_TVM_EXITS = {
    2: ("stack_underflow", "the contract's code is broken"),
    4: ("integer_overflow", "a number is too large to reckon with"),
    5: ("integer_out_of_range", "a number does not fit its field"),
    7: ("type_check", "the contract's code is broken"),
    8: ("cell_overflow", "more data than a cell holds"),
    9: ("cell_underflow", "the message's body is malformed"),
    10: ("dictionary_error", "a dictionary in the message is malformed"),
    -14: ("out_of_gas", "the operation ran out of gas"),
    13: ("out_of_gas", "the operation ran out of gas"),
    37: ("not_enough_toncoin", "the contract cannot send that much"),
    38: ("not_enough_extra_currencies", "the contract has no such currency"),
    40: ("cannot_process_message", "an outgoing message does not have what its delivery costs"),
    63: ("wrong_tag", "the message, or a part of it, is of another kind than expected"),
}


def describe_exit(code: int) -> str:
    """Name of an exit code in lower case: a refusal of ours, TVM's own, or `exit_<code>`."""
    try:
        return Refusal(code).name.lower()
    except ValueError:
        return "ok" if code in (0, 1) else _TVM_EXITS.get(code, (f"exit_{code}", ""))[0]


def explain_exit(code: int) -> str:
    """What an exit code means to who sent the message, in a few words."""
    try:
        return MEANINGS[Refusal(code)]
    except ValueError:
        return "done" if code in (0, 1) else _TVM_EXITS.get(code, ("", "no exit code of these contracts"))[1]
