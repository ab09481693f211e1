"""The sources, read once and apart from the agent: while none runs, and Cocoon workers for what only they tell.

Only reads: no path of a worker that changes its state is asked for (`agent.meter.cocoon`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec
import trio

from agent.config import Config
from agent.doctor.facts import Maybe, Nothing, Trial, Unknown, WorkerFacts
from agent.doctor.status_form import SourceForm
from agent.errors import AgentError
from agent.meter.cocoon import CocoonSource, exposure_notes
from agent.meter.cocoon_health import GuestHealth, read_health, vsock_guest
from agent.meter.sources import MeterSource
from agent.sources import open_sources
from gossip.records import Source

SOURCE_S = 5.0
"""For one source, or one guest."""


async def read_sources(
    config: Config, *, reads_all: bool, exposed: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[list[SourceForm], tuple[WorkerFacts, ...]]:
    """Read the sources, or the Cocoon workers alone, all of them and their guests at once, within `SOURCE_S`.

    `exposed`: by the worker's name, what is known of its control port, which is not tried again. Cancellation closes
    every connection.
    """
    tried = exposed or {}
    forms: list[SourceForm] = []
    workers: list[WorkerFacts] = []

    async def read(source: MeterSource) -> None:
        forms.append(await _read(source))

    async def read_worker(source: CocoonSource) -> None:
        source.tries_addresses = _name(source) not in tried
        guest: Trial = Nothing("the guest's health service is not asked (cocoon.health)")

        async def ask_guest() -> None:
            nonlocal guest
            guest = await _ask_guest(source.instance)

        async with trio.open_nursery() as nursery:
            if config.cocoon is not None and config.cocoon.health:
                nursery.start_soon(ask_guest)
            forms.append(await _read(source))
        workers.append(_worker(source, guest, tried.get(_name(source))))

    async with open_sources(config) as sources, trio.open_nursery() as nursery:
        for source in sources:
            if isinstance(source, CocoonSource):
                nursery.start_soon(read_worker, source)
            elif reads_all:
                nursery.start_soon(read, source)
    forms.sort(key=lambda form: (Source[form.source.upper()], form.instance))
    return forms, tuple(sorted(workers, key=lambda worker: worker.name))


async def _read(source: MeterSource) -> SourceForm:
    place = {"source": source.source.name.lower(), "instance": source.instance, "sampled_s": int(time.time())}
    try:
        with trio.fail_after(SOURCE_S):
            sample = await source.sample()
    except trio.TooSlowError:
        return msgspec.convert({**place, "error": f"no answer within {SOURCE_S:.0f} s"}, SourceForm)
    except AgentError as error:
        return msgspec.convert({**place, "error": str(error)}, SourceForm)
    told = {"provenance": sample.provenance, "gauges": dict(sample.gauges), "notes": list(sample.notes)}
    return msgspec.convert({**place, **told}, SourceForm)


async def _ask_guest(instance: int) -> Trial:
    """Whether all is well in the guest; unknown if it cannot be asked."""
    try:
        with trio.fail_after(SOURCE_S):
            return guest_trouble(await read_health(vsock_guest(instance)))
    except trio.TooSlowError:
        return Unknown(f"the guest's health service does not answer within {SOURCE_S:.0f} s")
    except (AgentError, OSError) as error:
        return Unknown(f"the guest's health service: {error}")


def guest_trouble(health: GuestHealth) -> str | None:
    """What is wrong in a guest, by its own word."""
    wrong = list(health.failing)
    if not health.is_ok and not wrong:
        wrong.append("it says that not all is well")
    if health.tdx is not None and health.tdx.is_image_verified is False:
        wrong.append("the image that was started is not the one that was measured")
    return "; ".join(wrong) or None


def _worker(source: CocoonSource, guest: Trial, tried: tuple[str, ...] | None) -> WorkerFacts:
    report = source.report
    exposed: Maybe[tuple[str, ...]]
    if tried is not None:
        exposed = tried
    elif source.exposures is None:
        exposed = Unknown(f"{_name(source)}: its control port was not tried, as it did not answer")
    else:
        exposed = tuple(exposure_notes(source.url, source.exposures))
    return WorkerFacts(
        name=_name(source),
        is_image_listed=None if report is None else report.is_image_listed,
        is_model_listed=None if report is None else report.is_model_listed,
        exposed=exposed,
        guest=guest,
    )


def _name(source: CocoonSource) -> str:
    return f"worker {source.instance}"
