"""Why a dial failed, in a few words for people: whoever mends a config has to know what is wrong with an address.

Untrusted: the errors' texts, in which a stranger may have a say. They are told apart by their types, and what is said
is the system's words; only what was not dialled at all says itself why, in a bounded text that may name the address.

Source: py-libp2p 0.8.1, which wraps what happened in errors of its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from libp2p.transport.exceptions import OpenConnectionError, UpgradeFailure

TIMED_OUT = "timed out"
ERRORS_LOOKED_AT_MAX = 64
"""Of those behind one failed dial."""
TEXT_MAX = 160
"""Characters of a reason that is shown."""


def dial_failure(error: BaseException) -> str:
    """What went wrong: the most telling of all the errors that led to this one."""
    causes = list(_causes(error))
    if any(isinstance(cause, PeerIDMismatchesPubkey) for cause in causes):
        return "another node key answers"
    for cause in causes:
        if isinstance(cause, (socket.gaierror, UnicodeError)):
            return "the name is not known"
        if isinstance(cause, TimeoutError):
            return TIMED_OUT
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno).lower()
    if any(isinstance(cause, (UpgradeFailure, HandshakeFailure)) for cause in causes):
        return "what answers is no agent, or refused the connection"
    last = causes[-1]
    return str(last)[:TEXT_MAX] if isinstance(last, OpenConnectionError) else type(last).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and all that it came from or bundles, nearest first; each once."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < ERRORS_LOOKED_AT_MAX:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
        waiting += [each for each in (cause.__cause__ or cause.__context__,) if each is not None]
