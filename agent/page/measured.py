"""The panel of what is measured: the rate of work, each source as it was read last, and a line for each GPU. Pure.

What sources say is untrusted: their number, and that of their readings, is bounded here; figures of a GPU are told by
the names that `agent.meter.nvml` gives them, and what has another name is shown under it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from agent import status_parts as parts
from agent.page.facts import PageFacts
from agent.page.html import Child, facts, hint, moment, table, tag
from agent.page.panels import panel, part_of
from agent.texts import legible

GAUGES_SHOWN = 40
UNFOLDED_MAX = 6
NOTES_SHOWN = 8
SOURCES_SHOWN = 17
GPUS_SHOWN = 16
_GIB = 1 << 30
_OF_A_GPU = re.compile(r'gpu_([a-z_]{1,40})\{uuid="([^"]{1,80})"\}')


def sources_panel(page: PageFacts) -> Element:
    """What was measured, and each source as it was read last."""
    work = part_of(page.status, parts.WorkPart)["work"]
    sources = part_of(page.status, parts.SourcesPart)["sources"]
    rate = work.get("tokens_per_s")
    return panel(
        "sources",
        "GPUs and sources",
        None if rate is None else tag("p", f"{rate:,.1f} tokens/s", class_="big"),
        facts(
            ("Since start", f"{work['tokens']:,} tokens"),
            ("Tasks", f"{work['tasks']:,}"),
            None if work["head"] is None else ("Log", f"at record {work['head']:,}"),
        ),
        [_source(source, page) for source in sources[:SOURCES_SHOWN]],
        None if sources else hint("No source is set, or none was read yet.", "warning"),
    )


def _source(source: parts.Source, page: PageFacts) -> Element:
    name = source["source"] + (f"-{source['instance']}" if source["instance"] else "")
    sampled_s, gauges = source.get("sampled_s"), sorted(source.get("gauges", {}).items())
    read: Child = ["read ", moment(sampled_s, page.now_s)] if sampled_s is not None else "not read yet"
    more = len(gauges) - GAUGES_SHOWN
    shown = [(legible(key), f"{value:,.10g}") for key, value in gauges[:GAUGES_SHOWN]]
    shown += [("and", f"{more} more: {page.spelled('gpupool status --json')}")] if more > 0 else []
    listed = facts(*shown)
    if len(shown) > UNFOLDED_MAX:
        listed = tag("details", tag("summary", f"{len(gauges)} readings"), listed, id=f"gauges-{name}")
    return tag(
        "div",
        tag("h3", name, " ", tag("span", legible(source["provenance"] or ""), class_="quiet")),
        tag("p", read, class_="quiet"),
        hint(legible(source["error"]), "problem") if source["error"] else None,
        [hint(legible(note)) for note in source["notes"][:NOTES_SHOWN]],
        _gpus(source.get("gauges", {})),
        listed if shown else None,
    )


def _gpus(gauges: Mapping[str, float]) -> Element | None:
    """A line for each GPU that is among the gauges."""
    by_gpu: dict[str, dict[str, float]] = {}
    for name, value in gauges.items():
        if (match := _OF_A_GPU.fullmatch(name)) is not None:
            by_gpu.setdefault(match[2], {})[match[1]] = value
    if not by_gpu:
        return None
    rows = [_gpu_row(uuid, figures) for uuid, figures in sorted(by_gpu.items())[:GPUS_SHOWN]]
    return table("GPUs", ("GPU", "Busy", "Memory", "Heat", "Power"), rows)


def _gpu_row(uuid: str, figures: Mapping[str, float]) -> tuple[Child, ...]:
    used, total = figures.get("memory_used_bytes"), figures.get("memory_total_bytes")
    power_mw = figures.get("power_mw")
    return (
        tag("code", legible(uuid).removeprefix("GPU-")[:8], title=legible(uuid)),
        _figure(figures.get("busy_percent"), "%"),
        "–" if used is None or total is None else f"{used / _GIB:.0f} of {total / _GIB:.0f} GiB",
        _figure(figures.get("temperature_c"), "°C"),
        _figure(None if power_mw is None else power_mw / 1000, "W"),
    )


def _figure(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:.0f} {unit}"
