"""What `gpupool upgrade check` knows: of the installed program, the journal beside it, and the agent that runs.

What answers at the agent's port may be an agent of any version, or something else: each part is read on its own, and
one that is not told, or is of another form, is unknown.

Source: `agent.status`, which writes what is read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from agent import journal_file, migrations
from agent.client import ask_status
from agent.config import Config
from agent.doctor.facts import Maybe, SettingsFacts, Unknown
from agent.doctor.probing_files import open_settings
from agent.errors import JournalError, OperationError

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
VERSION_LENGTH_MAX = 64
_KEY_FIX = "mend the file; a lost key comes from its backup alone (gpupool keys restore)"


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the status; every key may be absent."""


class AgentForm(Form, frozen=True):
    version: str = ""
    node_key: str = ""
    uptime_s: Count = 0


class ReachForm(Form, frozen=True):
    weight: Count = 0
    total_weight: Count = 0


class OperatorForm(Form, frozen=True):
    """An operator of the current set; versions are None if it said none yet."""

    node_key: str = ""
    weight: Count = 0
    agent: str | None = None
    protocols: list[Count] | None = None
    tallies: list[Count] | None = None


class KeyInUseForm(Form, frozen=True):
    text: str = ""


class VersionsForm(Form, frozen=True):
    operators: list[OperatorForm] = []
    key_in_use: KeyInUseForm | None = None


class ProposalForm(Form, frozen=True):
    kind: str = ""
    target: str | None = None
    hash: str = ""
    ready_s: Count = 0


class PoolForm(Form, frozen=True):
    proposals: list[ProposalForm] = []


class PolicyForm(Form, frozen=True):
    hash: str = ""
    is_held: bool = True
    epoch: Count | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFacts:
    """The journal's file: of which schema, who ran with it last, and what a migration needs."""

    schema: int
    written_by: str | None
    needed_bytes: int
    free_bytes: int
    copies: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningFacts:
    """What the agent that runs says."""

    agent: Maybe[AgentForm]
    reach: Maybe[ReachForm]
    versions: Maybe[VersionsForm]
    pool: Maybe[PoolForm]
    policies: Maybe[list[PolicyForm]]


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file that keeps an agent from starting: what is wrong with it, and what helps."""

    cause: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All of it. `codes` are the hashes of the contracts that the installed version works with, by target, as hex."""

    installed: str
    protocols: tuple[int, ...]
    tallies: tuple[int, ...]
    schema: int
    codes: Mapping[str, str]
    unusable: tuple[Unusable, ...]
    """What the installed version refuses to start with."""
    journal: Maybe[JournalFacts]
    running: Maybe[RunningFacts]
    now_s: int


_Form = TypeVar("_Form")


def look_at_settings(path: Path) -> tuple[Unusable, ...]:
    """Open all that the settings name, as an agent does when it starts; what it would refuse, in that order.

    A key file that this user may not read, and nobody else's, is no hindrance: systemd hands it to the service
    (`agent.credentials`).
    """
    settings, _ = open_settings(path)
    return tuple(_refused(settings))


def _refused(settings: SettingsFacts) -> Iterator[Unusable]:
    trials = {
        "config": (settings.config, "mend what it names"),
        "policy": (settings.policy, "get the pool's policy document from its operators; the agent's user must read it"),
        "node_key": (settings.node_key, _KEY_FIX),
        "wallet_key": (settings.wallet_key, _KEY_FIX),
        "proof": (settings.proof, "mend [attestation] in the settings"),
        "servers": (settings.servers, "mend [chain] in the settings"),
    }
    for name, (trial, fix) in trials.items():
        closed = settings.closed_keys.get(name)
        if trial is None or isinstance(trial, Unknown):
            continue
        if closed is not None:
            yield Unusable(f"{closed}: others can read this key, or its owner cannot", f"chmod 600 {quote(closed)}")
        elif name not in settings.denied_keys:
            yield Unusable(trial, fix)


def look_at_journal(config: Config) -> Maybe[JournalFacts]:
    """Look at the journal, beside an agent that may run; whose it is does not matter here."""
    path = config.journal_file
    try:
        journal_file.require_present(path)
        with journal_file.explaining(path, "read"), closing(journal_file.connect_reading(path)) as database:
            written_by = journal_file.read_meta(database, journal_file.AGENT_VERSION)
            return JournalFacts(
                schema=journal_file.read_schema(path, database),
                written_by=None if written_by is None else written_by.decode("ascii", "replace")[:VERSION_LENGTH_MAX],
                needed_bytes=migrations.needed_bytes(path, database),
                free_bytes=migrations.free_bytes(path),
                copies=tuple(migrations.backups(path)),
            )
    except JournalError as error:
        return Unknown(str(error))


def ask_running(config: Config) -> Maybe[RunningFacts]:
    """Ask the agent that runs; it blocks, for seconds at most."""
    try:
        return read_running(ask_status(config))
    except OperationError as error:
        return Unknown(str(error))


def read_running(tree: Mapping[str, Any]) -> RunningFacts:
    """Read a status; what is not as it should be is unknown."""
    return RunningFacts(
        agent=_read(dict(tree), AgentForm, "agent"),
        reach=_section(tree, "reach", ReachForm),
        versions=_section(tree, "versions", VersionsForm),
        pool=_section(tree, "pool", PoolForm),
        policies=_section(tree, "policies", list[PolicyForm]),
    )


def _section(tree: Mapping[str, Any], name: str, form: type[_Form]) -> Maybe[_Form]:
    if tree.get(name) is None:
        return Unknown(f"the agent that runs does not tell of `{name}`, or not yet")
    return _read(tree[name], form, name)


def _read(value: object, form: type[_Form], name: str) -> Maybe[_Form]:
    try:
        return msgspec.convert(value, form)
    except (msgspec.ValidationError, RecursionError) as error:
        return Unknown(f"the agent that runs tells of `{name}` in a form that is not known here: {error}")
