"""`make man`: writes build/gpupool.1, the manual page, from the tree of parsers that the command itself uses.

Everything that help shows stands in it, verb by verb. Its date is SOURCE_DATE_EPOCH, if that is set, as for every build
that can be repeated. Own code, for argparse-manpage runs examples, lists and exit codes together.

Source: man(7) of groff_man and mandoc.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from agent.command_line import build_parser
from agent.doctor.findings import FindingClass
from agent.output import EXIT_CODES
from agent.verbs import help_text, walk

TARGET = Path("build/gpupool.1")

_DESCRIPTION = """A node agent for the GPU hosts of a compute pool on TON. It proves what it runs on, measures its own
work, gossips signed records of it, reaches quorum with its peers on each epoch's totals, and submits them to the
pool's contracts. The agent itself is
.B gpupool run\\c
, mostly started by systemd as
.IR gpupool\\-agent.service ;
all other commands look at it, at its files, or at the pool."""

_DIAGNOSTICS = """What is wrong is said in one line on standard error, with what helps. With
.B \\-\\-json
an object follows on standard output: "error" (a name that stays), "message", "exit_code". Tracebacks are shown with
.B \\-\\-debug
alone, which goes before the command."""

_FILES = {
    "/etc/gpupool/agent.toml": "Settings, unless --config names others.",
    "node.key, wallet.key": "Beside the settings: the key that signs records, and the wallet's. Back them up.",
    "/var/lib/gpupool": "Journal and ledger of the packaged service (data_dir of the settings).",
}


def page(now_s: float) -> str:
    """The page, as of a moment in Unix seconds."""
    parser = build_parser()
    date = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%d")
    version = metadata.version("gpupool-agent")
    lines = [
        f'.TH GPUPOOL 1 {date} "gpupool-agent {version}" "User Commands"',
        ".nh",
        ".ad l",
        ".SH NAME",
        "gpupool \\- node agent for GPU hosts of a compute pool on TON",
        ".SH SYNOPSIS",
        ".B gpupool",
        "[\\fB\\-\\-debug\\fR] \\fIcommand\\fR ...",
        ".SH DESCRIPTION",
        _DESCRIPTION,
        ".SH OPTIONS",
        *_arguments(parser),
        ".SH COMMANDS",
    ]
    for each in walk(parser):
        if each.get_default("run") is not None:
            lines += _verb(each)
    lines += [".SH EXIT STATUS"]
    for code, meaning in EXIT_CODES.items():
        lines += _item(f"\\fB{code}\\fR", meaning)
    lines += [".PP", _plain("gpupool doctor ends with where its first problem lies:")]
    for clazz in FindingClass:
        lines += _item(f"\\fB{clazz.value}\\fR", clazz.name.lower())
    lines += [".SH DIAGNOSTICS", _DIAGNOSTICS, ".SH FILES"]
    for name, what in _FILES.items():
        lines += _item(f"\\fI{_plain(name)}\\fR", what)
    lines += [".SH SEE ALSO", ".BR systemctl (1),", ".BR journalctl (1)"]
    return "\n".join(lines) + "\n"


def _verb(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A verb: how it is called, what it does, its arguments, an example."""
    yield f".SS {_plain(parser.prog)}"
    usage = " ".join(parser.format_usage().split()).removeprefix("usage: ").removeprefix(parser.prog)
    yield f"\\fB{_plain(parser.prog)}\\fR{_plain(usage)}"
    yield from _text(str(parser.description))
    yield from _arguments(parser)
    yield from _text(str(parser.epilog))


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
            continue
        value = "" if action.nargs == 0 else parser._get_formatter()._format_args(action, str(action.dest).upper())
        parts = [", ".join(f"\\fB{_plain(name)}\\fR" for name in action.option_strings)]
        parts += [f"\\fI{_plain(value)}\\fR"] if value else []
        yield from _item(" ".join(filter(None, parts)), help_text(action))


def _item(tag: str, text: str) -> list[str]:
    return [".TP", tag, _plain(text)]


def _text(text: str) -> Iterator[str]:
    """Paragraphs; those with indented lines stay as they are."""
    for paragraph in text.split("\n\n"):
        if "\n  " in paragraph:
            first, *rest = paragraph.split("\n")
            yield from (".PP", _plain(first), ".PP", ".nf", *(_plain(line) for line in rest), ".fi")
        else:
            yield from (".PP", _plain(" ".join(paragraph.split())))


def _plain(text: str) -> str:
    """A text that roff shows as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main() -> int:
    """Write the page."""
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(page(float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
