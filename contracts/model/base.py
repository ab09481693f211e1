"""Addresses, amounts, limits: what every other value of the contracts is made of.

Source: `contracts/src/types.tolk` for the limits; TEP-2 for the forms of an address.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from contracts.errors import InvalidValueError

NANO = 10**9
"""nanoTON in one TON."""

ZERO_HASH = bytes(32)
"""`prev` of the first epoch: nothing has landed before it."""

BPS = 10_000
HOUR_S = 3600
DAY_S = 86_400
REPUTATION_START = 500
REPUTATION_MAX = 1000
OPERATORS_MAX = 180
"""A certificate of more signatures than this would not fit the gas limit of one message."""
PARTICIPANTS_MAX = 10_000
"""An account holds 65,536 cells at most, and an entry takes up to six of them in the registry."""
PAYOUTS_MAX = 200
"""Participants that one push pays at most."""
OPEN_EPOCHS_MAX = 64
EPOCH_ROOTS_MAX = 64
"""Totals roots that the registry keeps."""
PROPOSAL_LIFE_S = 30 * DAY_S
"""A proposal can be applied for so long once its waiting time is over."""
GUARDIAN_PAUSE_S = 14 * DAY_S
SLASH_HOLD_S = 7 * DAY_S
"""Slashed stake stays open to appeal for so long."""
SET_FALLBACK_S = 3 * DAY_S
"""So long after an epoch was finalized, a later operator set may settle it in place of the pinned one."""
UNTIL_RESUME_S = 2**32 - 1
"""`paused_until_s` of the registry while the pool is paused by a command."""


def require_uint(name: str, value: int, bits: int) -> None:
    """Raise `InvalidValueError` unless `value` is an integer in [0, 2**bits)."""
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise InvalidValueError(f"{name}: expected an unsigned integer of {bits} bits, got {value!r}")


def require_bytes(name: str, value: bytes, length: int) -> None:
    """Raise `InvalidValueError` unless `value` is exactly `length` bytes."""
    if type(value) is not bytes or len(value) != length:
        raise InvalidValueError(f"{name}: expected {length} bytes, got {value!r:.80}")


def require_range(name: str, value: int, least: int, most: int) -> None:
    """Raise `InvalidValueError` unless `value` is an integer in [least, most]."""
    if type(value) is not int or not least <= value <= most:
        raise InvalidValueError(f"{name}: expected {least}..{most}, got {value!r}")


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A standard TON address: `workchain` (int8) and the account's 32-byte hash."""

    workchain: int
    account: bytes

    def __post_init__(self) -> None:
        if type(self.workchain) is not int or not -128 <= self.workchain < 128:
            raise InvalidValueError(f"workchain: expected int8, got {self.workchain!r}")
        require_bytes("account", self.account, 32)

    def __str__(self) -> str:
        """Raw form, `0:<64 hex digits>`: unambiguous, the form for logs, files and --json."""
        return f"{self.workchain}:{self.account.hex()}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read the raw form (`0:hex`) or the friendly one (48 characters, base64 or base64url).

        Raises:
            InvalidValueError: the text is neither, or its checksum is wrong.
        """
        if ":" in text:
            head, _, tail = text.partition(":")
            try:
                return cls(int(head), bytes.fromhex(tail))
            except ValueError:
                raise InvalidValueError(f"not a TON address: {text!r:.80}") from None
        try:
            raw = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidValueError(f"not a TON address: {text!r:.80}") from None
        if len(raw) != 36 or binascii.crc_hqx(raw[:34], 0) != int.from_bytes(raw[34:], "big"):
            raise InvalidValueError(f"not a TON address (length or checksum): {text!r:.80}")
        return cls(int.from_bytes(raw[1:2], "big", signed=True), raw[2:34])

    def friendly(self, *, bounceable: bool = True, testnet: bool = False) -> str:
        """The 48-character form that wallets and explorers show."""
        tag = (0x11 if bounceable else 0x51) | (0x80 if testnet else 0)
        body = bytes([tag]) + self.workchain.to_bytes(1, "big", signed=True) + self.account
        return base64.urlsafe_b64encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "big")).decode()
