"""What a verb of `gpupool pool` is: name, function, arguments, example, and what it works with.

A name of two words is the second of a family (`stake add`). What a verb needs decides its common options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from pathlib import Path
from typing import Any

from agent.verbs import Argument, arg

GROUPS = {
    "begin": "Begin a pool (owner)",
    "part": "Take part (participant)",
    "run": "Run the pool (owner; after the hand-over operators, by certificate)",
    "discipline": "Hold participants to the rules (likewise)",
    "certificate": "Carry a certificate through the operators",
    "anybody": "Look, and keep things going (anybody)",
}


class Needs(Flag):
    """What a verb works with."""

    NOTHING = 0
    CONFIG = auto()
    """A config file."""
    CHAIN = auto()
    """A pool on a chain, by config or by hand."""
    SENDS = auto()
    """A wallet; can be rehearsed."""
    SIGNS = auto()
    """A node key."""
    DRAFTS = auto()
    """May end in a certificate file."""
    CONSENT = auto()
    """Cannot be undone, or is a signature."""
    NEW = auto()
    """The pool is yet to be: everything is given by hand."""


LOOK = Needs.CONFIG | Needs.CHAIN
SEND = LOOK | Needs.SENDS
COMMAND = SEND | Needs.SIGNS | Needs.DRAFTS
BY_AGENT = Needs.CONFIG | Needs.SENDS
"""Needs a settlement, which an agent knows: its config is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb. `run` is "module.function" of this package; `example` follows the name; `file` shows its FILE."""

    group: str
    name: str
    run: str
    summary: str
    needs: Needs
    example: str = ""
    file: str = ""
    arguments: tuple[Argument, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


FILE = arg("file", type=Path, metavar="FILE", help="a TOML file")
CERTIFICATE = arg("file", type=Path, metavar="FILE", help="a certificate file")
CODE = arg("file", type=Path, metavar="FILE", help="the code: a BoC, or an artifact")
OWNER = arg("owner", metavar="OWNER", help="the participant's address")
PARTICIPANT = arg("--participant", metavar="ADDRESS", help="for somebody else, who is paid all the same")
AMOUNT = arg("amount", metavar="AMOUNT", help="in TON")
