"""What kind of file this is, by its first bytes: so that a file in the wrong place is told by its name.

Nothing is read or refused here: a kind is what a file looks like, and it may still be malformed.
Binary ones are recognised in hex and base64, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from agent.attest.inputs import decode_text
from attestation.errors import AttestationError


class Kind(StrEnum):
    """The kinds of files of attestation, as they are named to people."""

    QUOTE = "a quote"
    COLLATERAL = "collateral"
    BUNDLE = "a bundle of collateral"
    CERTIFICATE = "a certificate"
    GPU_REPORT = "a GPU report"
    GPU_EVIDENCE = "GPU evidence"


_BUNDLE = re.compile(rb'\{\s*"(?:update|collateral)"\s*:')
_PEM = b"-----BEGIN"
_BINARY = (
    (Kind.QUOTE, (b"\3\0", b"\4\0", b"\5\0")),
    (Kind.CERTIFICATE, (b"\x30",)),
    (Kind.GPU_REPORT, (b"\x11\xe0",)),
    (Kind.GPU_EVIDENCE, (b"\x92\x01",)),
)


def kind_of(data: bytes) -> Kind | None:
    """What `data` looks like, None if like nothing that is known here."""
    text = data.lstrip()
    if text.startswith(b"{"):
        return Kind.BUNDLE if _BUNDLE.match(text) else Kind.COLLATERAL
    if text.startswith(_PEM):
        return Kind.CERTIFICATE
    raw = decode_text(data)
    return next((kind for kind, heads in _BINARY if raw.startswith(heads)), None)


@contextmanager
def expecting(expected: Kind, data: bytes) -> Iterator[None]:
    """Within the block `data` is read as what was expected: an error says so if it looks like something else."""
    try:
        yield
    except AttestationError as error:
        kind = kind_of(data)
        if kind in (None, expected):
            raise
        raise type(error)(f"this looks like {kind}, expected {expected}: {error}") from error
