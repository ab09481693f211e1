"""What the doctor knows: facts, each known or unknown with the reason why.

A fact is what was seen, never a judgement: those are made in the checks. Nothing here does I/O. A `Trial` is the
outcome of something that was tried: None if it went well, else the words of what went wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from agent.errors import AgentError
from agent.verbs import DEFAULT_CONFIG

if TYPE_CHECKING:
    from agent.doctor.status_form import SourceForm, Status
    from contracts.model import Address, Leaf, Participant, PoolState, RewardsState
    from gossip.policy import PoolPolicy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A fact that could not be had, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Nothing(Unknown):
    """There is nothing to be had: it is not known because it does not apply here, and why."""


Maybe: TypeAlias = T | Unknown
Trial: TypeAlias = str | Unknown | None


class NotKnownError(AgentError):
    """A check needs a fact that is unknown: it is not made."""


class DoesNotApplyError(NotKnownError):
    """There is nothing to check on this node, or in this pool."""


def known(fact: Maybe[T]) -> T:
    """The fact itself.

    Raises:
        NotKnownError: it is unknown; the message says why.
        DoesNotApplyError: there is nothing to know.
    """
    if isinstance(fact, Nothing):
        raise DoesNotApplyError(fact.reason)
    if isinstance(fact, Unknown):
        raise NotKnownError(fact.reason)
    return fact


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFacts:
    """The settings file and those that it names."""

    config: str | None
    """What is wrong with the settings file, as far as it is known: `meter.window_s` is held against the policies."""
    node_key: Trial
    wallet_key: Trial
    closed_keys: Mapping[str, str]
    """The key files, node_key and wallet_key, whose mode alone keeps them from being used."""
    policy: Trial
    policy_files: tuple[str, ...]
    """Where the documents held stand, in their order."""
    servers: Trial
    """The list of liteservers."""
    proof: Trial
    """The files behind [attestation]."""
    changed_s: Maybe[int]
    """When the settings file was written last, Unix seconds."""
    denied_keys: frozenset[str] = frozenset()
    """The keys, node_key and wallet_key, whose file is another user's alone: root's, mostly."""
    not_backed_up: Maybe[tuple[str, ...]] = ()
    """The key files that can be used, and of which no backup is noted beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """This host, as far as the agent needs it."""

    data_dir: Trial
    free_bytes: Maybe[int]
    """Left for the agent on the disk of the data folder."""
    web_port: Trial
    """Whether the agent that does not run could listen for questions."""
    receipts_port: Trial
    """The same for receipts."""
    p2p_ports: Trial
    """The same for other agents."""
    prover: Trial
    """What makes quotes: the kernel's TDX interface, the Cocoon guest, or the software platform."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFacts:
    """The journal's file, read beside an agent that may run."""

    missing: str | None
    unusable: Trial
    """It cannot be opened, or is of another version."""
    damage: Trial
    windows_waiting: Maybe[int]
    """Closed work windows that are no records yet."""
    settled: Maybe[SettledFacts | None]
    """The last settlement that it holds; None: none so far."""
    key_in_use: str | None = None
    """Why the last run stopped, if another host used the node key."""
    foreign: str | None = None
    """Why it is of another node key or pool than these settings."""

    @property
    def is_open(self) -> bool:
        """Whether it could be opened, and so was examined."""
        return self.missing is None and self.unusable is None and self.foreign is None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledFacts:
    """The last settlement that this node knows."""

    epoch: int
    total_score: int
    leaves: Mapping[Address, Leaf]
    """What each participant got."""
    is_dead: bool
    """The own log forked or was closed: nothing above its head ever counts."""


class DaemonState(Enum):
    """What answers where the agent should listen."""

    UP = "up"
    DOWN = "down"
    SILENT = "silent"
    """Nothing answers, but a process holds the journal."""
    STRANGER = "stranger"
    """Something answers that is no agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds the journal: its number and command line, as far as the kernel shows them."""

    pid: int | None
    command: str
    is_agent: bool
    """Whether it runs an agent, as far as its command line tells."""

    def __str__(self) -> str:
        return "a process that is not shown here" if self.pid is None else f"process {self.pid} ({self.command})"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonFacts:
    """The running agent, as it speaks of itself. `detail` are the words of what went wrong in asking it."""

    state: DaemonState
    detail: str
    status: Maybe[Status]
    healthy: Trial
    ready: Trial
    holder: Holder | None = None
    """Who holds the journal while nobody answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One liteserver: its newest block, or why there is no answer."""

    name: str
    error: str | None
    time_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFacts:
    """The chain, as this command reached it. `servers` are those that were asked one by one."""

    error: str | None
    """Why no liteserver gave a block that could be believed."""
    conflict: Trial
    """In what two liteservers contradict each other."""
    global_id: Maybe[int]
    wanted_id: int
    clock_ahead_s: Maybe[int]
    """This host's clock less the newest block's time, when that was read."""
    servers: tuple[ServerFacts, ...]
    servers_known: int
    """How many liteservers the settings lead to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """The pool at the newest block, and this node in it."""

    time_s: int
    state: PoolState
    rewards: RewardsState
    entry: Maybe[Participant | None]
    """The entry of the own node key; None if there is none."""
    wallet: Maybe[Address]
    wallet_nanoton: Maybe[int]
    worker: Trial
    """Whether the policy lets the own Cocoon worker contract count."""
    worker_tokens: Maybe[int]
    """What that contract was ever paid for."""
    is_next_registered: bool = False
    """Whether the registry names the key that a rotation made (node.key.next)."""
    wallets_node_key: bytes | None = None
    """The node key that the registry names for the own wallet, if it is another than the own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """A Cocoon worker of this host, asked directly. Image and model: None where it does not tell."""

    name: str
    is_image_listed: bool | None
    is_model_listed: bool | None
    exposed: Maybe[tuple[str, ...]]
    """On which addresses strangers may control it, in words."""
    guest: Trial
    """What its guest says of its own services."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All of it. `now_s` is this host's clock, Unix seconds; `version` that of the program that asks."""

    now_s: int
    version: str
    settings: SettingsFacts
    node_key: Maybe[bytes]
    """The own one, from its file."""
    host: Maybe[HostFacts]
    journal: Maybe[JournalFacts]
    daemon: Maybe[DaemonFacts]
    chain: Maybe[ChainFacts]
    pool: Maybe[PoolFacts]
    pool_absent: Trial
    """Why there is no pool at the address."""
    policies: Maybe[Mapping[bytes, PoolPolicy]]
    """The policy documents held, by hash."""
    sources: Maybe[list[SourceForm]]
    """What counts this host's work, as the agent reads it; while none runs, as this command did."""
    workers: Maybe[tuple[WorkerFacts, ...]]
    config_file: Path = DEFAULT_CONFIG
    """The settings file that was looked at."""
    untried: tuple[str, ...] = ()
    """What is wrong with sources of settings that are newer than the agent that runs."""

    def status(self) -> Status:
        """What the running agent says of itself. Raises `NotKnownError` if it says nothing."""
        return known(known(self.daemon).status)

    def settled(self) -> tuple[SettledFacts, Leaf | None]:
        """The last settlement that is known, and the own leaf in it. Raises `NotKnownError` if there is none."""
        settled, entry = known(known(self.journal).settled), known(known(self.pool).entry)
        if settled is None:
            raise DoesNotApplyError("this agent knows no settlement yet")
        return settled, None if entry is None else settled.leaves.get(entry.address)

    def policy(self) -> PoolPolicy:
        """The document by which the running epoch is counted; without the chain that of `pool.policy_file`.

        Raises:
            NotKnownError: it is not held.
        """
        held = known(self.policies)
        if isinstance(self.pool, Unknown):
            return next(iter(held.values()))
        wanted = self.pool.rewards.running.terms.policy_hash
        if wanted not in held:
            raise NotKnownError(f"the running epoch is counted by policy {wanted.hex()[:16]}, which is not here")
        return held[wanted]
