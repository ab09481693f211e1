"""Op-codes of the contracts' messages, and the names of the exit codes with which they refuse.

The numbers stand in `contracts/src/messages.tolk` and `contracts/src/errors.tolk`; a test holds these
tables against them, and each op-code against crc32 of its name. `describe_exit` turns an exit code that
a transaction shows into words for a log or a screen.

Source: `contracts/schema.tlb`; TON documentation "TVM exit codes" for the codes below 128.
"""

from __future__ import annotations

from enum import IntEnum


class Op(IntEnum):
    """First 32 bits of a message body: crc32 of the name in lower case, without its highest bit."""

    POOL_INIT = 0x40DAF533
    POOL_REGISTER_PARTICIPANT = 0x3ADB4D2F
    POOL_ENABLE_QUORUM = 0x1FEA3236
    POOL_SUBMIT_CERTIFICATE = 0x4B7A4987
    POOL_RELAY_CERTIFICATE = 0x0AA07B1F
    REGISTRY_ADD_PARTICIPANT = 0x135BDFDB
    DISTRIBUTION_RECEIVE_PAYMENT = 0x3162DF77
    DISTRIBUTION_FINALIZE_EPOCH = 0x53994C82
    DISTRIBUTION_CLAIM_REWARDS = 0x44345C00
    # Numbers that others have given: Cocoon's payout and excesses, TEP-74's excesses, the usual top-up.
    PAYOUT = 0xC59A7CD3
    COCOON_EXCESSES = 0x2565934C
    EXCESSES = 0xD53276DB
    TOP_UP = 0xD372158C


FOREIGN_OPS = frozenset({Op.PAYOUT, Op.COCOON_EXCESSES, Op.EXCESSES, Op.TOP_UP})
"""Ops whose number is not the crc32 of a name of ours."""


class Event(IntEnum):
    """First 32 bits of an external log message; numbered like an op."""

    EVENT_POOL_INITIALISED = 0x7C712FB0
    EVENT_QUORUM_ENABLED = 0x5E13E7E4
    EVENT_PARTICIPANT_REGISTERED = 0x09284B65
    EVENT_EPOCH_FINALIZED = 0x38B269C8
    EVENT_EPOCH_SETTLED = 0x70D42CB0
    EVENT_REWARDS_CLAIMED = 0x42F0FBAA


class Refusal(IntEnum):
    """Exit codes of our own: 1xx access and value, 2xx registry, 3xx epoch, 4xx certificate, 5xx claim."""

    NOT_OWNER = 150
    NOT_POOL = 151
    NOT_INITIALISED = 152
    ALREADY_INITIALISED = 153
    INSUFFICIENT_VALUE = 154
    WRONG_WORKCHAIN = 155
    INVALID_PARAMS = 156
    UNDERFUNDED = 157
    ALREADY_REGISTERED = 201
    NODE_KEY_TAKEN = 202
    STAKE_BELOW_MINIMUM = 203
    POOL_FULL = 204
    REGISTRATION_CLOSED = 205
    NOT_REGISTERED = 206
    EPOCH_RUNNING = 301
    TOO_MANY_OPEN_EPOCHS = 302
    ALREADY_SETTLED = 303
    EPOCH_OUT_OF_ORDER = 304
    EPOCH_NOT_FINALIZED = 305
    WRONG_PREV = 306
    TOTAL_SHRINKS = 307
    TOTAL_OVER_POT = 308
    INCONSISTENT_TOTALS = 309
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
    NOT_A_PROOF = 501
    WRONG_ROOT = 502
    NO_LEAF = 503
    NOTHING_TO_PAY = 504
    CLAIMS_OVER_TOTAL = 505
    UNKNOWN_OP = 0xFFFF


_TVM_EXITS = {
    2: "stack_underflow",
    4: "integer_overflow",
    5: "integer_out_of_range",
    7: "type_check",
    8: "cell_overflow",
    9: "cell_underflow",
    10: "dictionary_error",
    -14: "out_of_gas",
    13: "out_of_gas",
    37: "not_enough_toncoin",
    38: "not_enough_extra_currencies",
    40: "cannot_process_message",
    63: "wrong_tag",
}


def describe_exit(code: int) -> str:
    """Name of an exit code in lower case: a refusal of ours, TVM's own, or `exit_<code>`."""
    try:
        return Refusal(code).name.lower()
    except ValueError:
        return "ok" if code in (0, 1) else _TVM_EXITS.get(code, f"exit_{code}")
