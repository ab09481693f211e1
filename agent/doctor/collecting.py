"""Collects the doctor's facts: from files, the journal, the running agent, the chain and the sources, all at once.

A shell without judgement. It only looks, changes nothing, and works whatever is broken.

1. Every probe has a deadline; what is not known by then is unknown, and says so. All of it ends within `WHOLE_S`.
2. What the running agent knows is asked of it; the same chain is asked besides, so that both can be compared.
3. Only while no agent runs are its ports tried and all sources read; Cocoon workers are asked besides it.
4. Who looks again and again hands over what was found before: what takes long or disturbs others (examining the
   journal, trying the workers' control ports) is then not done anew.
5. Sources are read, too, if the settings are newer than the agent that runs: what it will meet when it starts again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import trio

from agent.config import Config
from agent.doctor.facts import (
    DaemonFacts,
    DaemonState,
    Facts,
    HostFacts,
    JournalFacts,
    Maybe,
    NotKnownError,
    SettingsFacts,
    Trial,
    Unknown,
    known,
)
from agent.doctor.probing_agent import ask_running
from agent.doctor.probing_chain import look_at_chain, unreached
from agent.doctor.probing_files import UNREAD, Opened, look_at_host, open_settings, try_kernel, unread_settings
from agent.doctor.probing_journal import look_at_journal
from agent.doctor.probing_sources import read_sources
from agent.doctor.status_form import SourceForm
from agent.errors import AgentError
from contracts.errors import ContractsError
from gossip.records import PoolId

WHOLE_S = 15.0
FILES_S = 3.0
AGENT_S = 5.0
JOURNAL_S = 9.0
CHAIN_S = 11.0
SOURCES_S = 6.0
PROVER_S = 3.0

_T = TypeVar("_T")


async def collect(path: Path, *, before: Facts | None = None) -> Facts:
    """The facts about the agent whose settings stand at `path`, within `WHOLE_S`; `before`: those found last (rule 4).

    Cancellation leaves nothing behind but threads that end by themselves.
    """
    looked = await _within(FILES_S, "reading the settings", lambda: _in_thread(lambda: open_settings(path)))
    settings, opened = (unread_settings(looked.reason), None) if isinstance(looked, Unknown) else looked
    facts = await _Collector(settings, opened, before).run() if opened is not None else _unseen(settings, UNREAD)
    return replace(facts, config_file=path)


def _unseen(settings: SettingsFacts, unknown: Unknown) -> Facts:
    """Nothing is known besides the settings."""
    return Facts(
        now_s=int(time.time()),
        version=metadata.version("gpupool-agent"),
        settings=settings,
        node_key=unknown,
        host=unknown,
        journal=unknown,
        daemon=unknown,
        chain=unknown,
        pool=unknown,
        pool_absent=unknown,
        policies=unknown,
        sources=unknown,
        workers=unknown,
    )


class _Collector:
    """One round of probes, which put what they found into `facts`."""

    def __init__(self, settings: SettingsFacts, opened: Opened, before: Facts | None) -> None:
        policies = opened.policies if opened.policies is not None else Unknown("the policy documents cannot be read")
        late = Unknown(f"not known within {WHOLE_S:.0f} s")
        node_key = Unknown("the node key cannot be used") if opened.node_key is None else opened.node_key.public
        self._opened = opened
        self._before = before
        self._facts = replace(_unseen(settings, late), policies=policies, node_key=node_key)

    async def run(self) -> Facts:
        with trio.move_on_after(WHOLE_S - FILES_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._journal)
                nursery.start_soon(self._chain)
                nursery.start_soon(self._agent_then_rest)
        return replace(self._facts, now_s=int(time.time()))

    async def _agent_then_rest(self) -> None:
        """The agent first: whether it runs decides what else may be touched."""
        config = self._opened.config
        daemon = await _within(AGENT_S, "asking the agent", lambda: ask_running(config))
        self._facts = replace(self._facts, daemon=daemon)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._host)
            nursery.start_soon(self._sources)

    async def _host(self) -> None:
        config = self._opened.config
        prover = await _within(PROVER_S, "asking for the prover", lambda: _try_prover(config))
        daemon = self._facts.daemon
        is_down = isinstance(daemon, DaemonFacts) and daemon.state is DaemonState.DOWN

        def look() -> HostFacts:
            return look_at_host(config, prover, is_agent_down=is_down)

        host = await _within(FILES_S, "looking at the data folder", lambda: _in_thread(look))
        self._facts = replace(self._facts, host=host)

    async def _journal(self) -> None:
        opened, config = self._opened, self._opened.config
        pool = PoolId(config.pool.global_id, config.pool.contract.account)
        node_key = None if opened.node_key is None else opened.node_key.public

        before = self._before.journal if self._before is not None else None
        earlier = before if isinstance(before, JournalFacts) and before.is_open else None

        def look() -> JournalFacts:
            return look_at_journal(config.journal_file, node_key, pool, earlier)

        journal = await _within(JOURNAL_S, "looking at the journal", lambda: _in_thread(look))
        self._facts = replace(self._facts, journal=journal)

    async def _chain(self) -> None:
        if not self._opened.servers:
            none = Unknown("no liteserver is known")
            self._facts = replace(self._facts, chain=none, pool=none, pool_absent=none)
            return
        seen = await _within(CHAIN_S, "asking the chain", lambda: look_at_chain(self._opened))
        if isinstance(seen, Unknown):
            seen = unreached(self._opened, seen.reason)
        self._facts = replace(self._facts, chain=seen.chain, pool=seen.pool, pool_absent=seen.pool_absent)

    async def _sources(self) -> None:
        """What the agent tells of its sources, else what is read here; Cocoon workers are read besides."""
        told: Maybe[list[SourceForm]]
        try:
            told = known(self._facts.status().sources)
        except NotKnownError as error:
            told = Unknown(str(error))
        config, exposed = self._opened.config, self._exposed_before()
        reads_all = isinstance(told, Unknown) or self._are_settings_newer()
        seen = await _within(
            SOURCES_S, "reading the sources", lambda: read_sources(config, reads_all=reads_all, exposed=exposed)
        )
        forms, workers = (seen, seen) if isinstance(seen, Unknown) else seen
        self._facts = replace(self._facts, sources=forms if isinstance(told, Unknown) else told, workers=workers)
        if reads_all and not isinstance(told, Unknown) and not isinstance(forms, Unknown):
            untried = tuple(f"{form.name}: {form.error}" for form in forms if form.error)
            self._facts = replace(self._facts, untried=untried)

    def _are_settings_newer(self) -> bool:
        """Whether the agent that runs was started before the settings were written (rule 5)."""
        try:
            up_s = known(self._facts.status().agent).uptime_s
            return known(self._facts.settings.changed_s) > time.time() - up_s
        except NotKnownError:
            return False

    def _exposed_before(self) -> dict[str, tuple[str, ...]]:
        """What is known of the workers' control ports, by the worker's name."""
        workers = self._before.workers if self._before is not None else ()
        if isinstance(workers, Unknown):
            return {}
        return {each.name: each.exposed for each in workers if not isinstance(each.exposed, Unknown)}


async def _try_prover(config: Config) -> Trial:
    """Whether what makes this host's quotes is there; it is not asked for one."""
    table = config.attestation
    if table.provider == "configfs":
        return await _in_thread(lambda: try_kernel(config.resolve(table.tsm_dir)))
    if table.provider == "software":
        return None  # its files are read with the settings
    assert table.guest_address is not None
    host, _, port = table.guest_address.rpartition(":")
    try:
        stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
    except OSError as error:
        return f"the Cocoon guest does not answer at {table.guest_address}: {error}"
    await stream.aclose()
    return None


async def _in_thread(function: Callable[[], _T]) -> _T:
    """Run what blocks; cancelled, the thread is left to end by itself."""
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True)  # type: ignore[call-arg]  # old stubs


async def _within(seconds: float, what: str, probe: Callable[[], Awaitable[_T]]) -> Maybe[_T]:
    """What the probe finds; unknown if it takes too long or fails as a whole."""
    try:
        with trio.fail_after(seconds):
            return await probe()
    except trio.TooSlowError:
        return Unknown(f"{what} took more than {seconds:.0f} s")
    except (AgentError, ContractsError, OSError) as error:
        return Unknown(f"{what}: {error}")
