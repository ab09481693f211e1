"""Where quotes and collateral come from. A provider is trusted by nobody: peers verify what it gives."""

from __future__ import annotations

from typing import Protocol

from attestation.collateral import Collateral


class QuoteProvider(Protocol):
    """A source of TDX quotes of this machine and of the collateral for them."""

    async def quote(self, report_data: bytes) -> bytes:
        """Return a quote (at most 16 KiB) over `report_data` (64 bytes). Cancellation leaves nothing behind."""
        ...

    async def collateral(self) -> Collateral:
        """Return the newest collateral for this machine. Cancellation leaves nothing behind."""
        ...
