"""The address file: what a node knows of where others are, so that a restart needs no peer that was configured.

A cache beside the journal. Untrusted like a peer: its records are verified when they are read, and a file that is
damaged is left aside with a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from agent.files import write_durably
from gossip import codec
from gossip.addresses import ADDRESS_BYTES_MAX
from gossip.errors import InvalidMessageError
from gossip.sync import LOGS_MAX

FILE_BYTES_MAX = 32 * 1024 * 1024

log = logging.getLogger(__name__)


def load_addresses(path: Path) -> tuple[bytes, ...]:
    """The wires of the address records that were saved; none if there is no file, or it is not what was written."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        items = codec.as_array(codec.decode(data, bytes_max=FILE_BYTES_MAX), "file", length_max=LOGS_MAX)
        return tuple(codec.as_bytes(item, "record", length_max=ADDRESS_BYTES_MAX) for item in items)
    except FileNotFoundError:
        return ()
    except (OSError, InvalidMessageError) as error:
        log.warning("%s: not read, peers are asked instead: %s", path, error)
        return ()


def save_addresses(path: Path, wires: Sequence[bytes]) -> None:
    """Replace the file. Whole or not at all; a failure is logged, for nothing but speed depends on it."""
    try:
        write_durably(path, codec.encode(tuple(wires)))
    except OSError as error:
        log.warning("%s: not written, it is tried again at the next change: %s", path, error)
