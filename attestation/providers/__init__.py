"""Where quotes and collateral come from. A provider is trusted by nobody: peers verify what it gives."""

from __future__ import annotations

from typing import Protocol

from attestation.collateral import Collateral
from attestation.errors import AttestationError
from attestation.types import ProvidedQuote


class QuoteProvider(Protocol):
    """A source of TDX quotes."""

    async def quote(self, challenge: bytes) -> ProvidedQuote:
        """Return a quote that is tied to `challenge` (64 bytes). Cancellation leaves nothing behind."""
        ...


class CollateralProvider(Protocol):
    """A source of collateral for quotes."""

    @property
    def error(self) -> AttestationError | None:
        """Why the newest collateral could not be had, for the status; None if all is well."""
        ...

    async def collateral(self, raw_quote: bytes, now_s: int) -> Collateral:
        """Return the newest collateral for `raw_quote` at `now_s` (Unix seconds).

        Cancellation leaves nothing behind.
        """
        ...
