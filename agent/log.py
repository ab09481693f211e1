"""Logs: one line per event on stderr: JSON for machines, key=value for a person at a terminal or for the journal.

Decides how events are rendered and what never appears in them. Values may come from peers, so nothing in a
line is trusted to be short or printable.

1. A line has a time (UTC), a level, the module's name and an event; named values are members of their own.
2. A value whose name says that it is secret is not written. Bytes are shown by their first 8 bytes, which
   is enough to tell keys and hashes apart and too little to leak one.
3. Libraries log through the same lines, at WARNING and above only; libp2p, which warns of every peer that goes
   or misbehaves, at CRITICAL only (`gossip.libp2p_patches`).
4. systemd's journal keeps time and level itself: there, each line begins with its level as `<N>`, and has no time.

Source: sd-daemon(3), "SYSLOG_PREFIX"; systemd.exec(5), "$JOURNAL_STREAM".
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Form = Literal["json", "console", "journal"]

_LEVELS = ("debug", "info", "warning", "error")
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Levels of syslog(3)."""
_OURS = ("agent", "gossip", "attestation", "contracts")
_SECRET_NAMES = frozenset({"authorization", "mnemonic", "passphrase", "password", "private_key", "secret", "seed"})
_BYTES_SHOWN = 8
_TEXT_MAX = 2048


def setup_logging(level: str = "info", *, stream: TextIO | None = None, form: Form | None = None) -> None:
    """Send every log line of the process to `stream` (stderr), in the form that whoever reads there understands.

    Raises:
        ValueError: `level` is none of debug, info, warning, error.
    """
    if level not in _LEVELS:
        raise ValueError(f"level: expected one of {', '.join(_LEVELS)}, got {level!r:.40}")
    stream = sys.stderr if stream is None else stream
    form = _form_for(stream, os.environ) if form is None else form
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _presentable,
    ]
    if form != "journal":
        shared.insert(-1, structlog.processors.TimeStamper(fmt="iso", utc=True))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    render: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if form == "console":
        # Not rich's tracebacks, the default where it is installed: they show the variables, keys among them.
        plain = structlog.dev.plain_traceback
        render += [_printable, structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    elif form == "journal":
        render += [_printable, structlog.processors.format_exc_info, _journal_lines]
    else:
        render += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=render))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    for name, library in logging.root.manager.loggerDict.items():
        # A library that set a level or a handler of its own while it was imported is brought back in line.
        if isinstance(library, logging.Logger) and name.partition(".")[0] not in _OURS:
            library.handlers, library.propagate = [], True
            library.setLevel(library.level if library.level > logging.WARNING else logging.NOTSET)


def _form_for(stream: TextIO, environment: Mapping[str, str]) -> Form:
    """The form for a stream: the journal's if systemd says that this very stream leads there."""
    if stream.isatty():
        return "console"
    try:
        status = os.fstat(stream.fileno())
    except io.UnsupportedOperation:  # a stream in memory
        return "json"
    return "journal" if environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}" else "json"


def _journal_lines(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """`<6>agent.daemon: what happened key=value`, and each line of a traceback with its level, too."""
    prefix = f"<{_PRIORITIES.get(event.pop('level', ''), _PRIORITIES['info'])}>"
    name, what, trace = event.pop("logger", ""), event.pop("event", ""), event.pop("exception", "")
    values = "".join(f" {key}={value}" for key, value in event.items())
    lines = [f"{name}: {what}{values}", *str(trace).splitlines()]
    return "\n".join(prefix + line for line in lines)


def _presentable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Rule 2, and a bound on the length of texts."""
    for name, value in event.items():
        if name in _SECRET_NAMES or name.endswith(("_seed", "_secret", "_password")):
            event[name] = "(secret)"
        elif isinstance(value, (bytes, bytearray)):
            event[name] = value[:_BYTES_SHOWN].hex() + ("…" if len(value) > _BYTES_SHOWN else "")
        elif isinstance(value, str) and len(value) > _TEXT_MAX:
            event[name] = value[:_TEXT_MAX] + "…"
    return event


def _printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what a terminal would obey instead of show."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = repr(value)
    return event
