"""The live screen of `gpupool status --watch`: one agent, drawn from what it says of itself and what the doctor found.

Pure: a frame in, something to draw out. Texts of others are shown so that nothing in them moves the cursor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.doctor.facts import Maybe, Unknown
from agent.doctor.findings import Finding, Severity, worst_first
from agent.doctor.screen import COLOURS, finding_lines
from agent.doctor.status_form import ChainForm, CloseForm, EvidenceForm, SourceForm, Status, WorkForm
from agent.screens import ton
from agent.texts import legible

BAR_WIDTH = 30
GAUGES_SHOWN = 8
NOTES_SHOWN = 3
FINDINGS_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What one frame shows. `status` is the agent's last answer, of `seen_ago_s` ago; `away` says why there is no newer
    one; `findings` are the doctor's, None until it has looked."""

    status: Status | None
    away: str | None
    seen_ago_s: int | None
    findings: Sequence[Finding] | None
    now_s: int


def watch_view(frame: Frame) -> RenderableType:
    """Draw one frame."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, line in _lines(frame):
        table.add_row(name, line)
    return Group(table, Text("\nq leaves", "dim"))


def _lines(frame: Frame) -> Iterator[tuple[str, Text]]:
    if frame.away is not None:
        seen = "" if frame.seen_ago_s is None else f"; what follows is {frame.seen_ago_s} s old"
        yield "agent", Text(f"away: {legible(frame.away)}{seen}", "red")
    status = frame.status
    if status is not None:
        if frame.away is None:
            yield "agent", _agent(status)
        yield "chain", _chain(status.chain, frame.now_s)
        yield "evidence", _evidence(status.evidence, frame.now_s)
        yield "work", _work(status.work)
        yield from _sources(status.sources, frame.now_s)
        yield "peers", _peers(status)
        yield "close", _close(status.close)
        yield "settled", _settled(status)
    yield from _findings(frame.findings)


def _agent(status: Status) -> Text:
    form = status.agent
    if isinstance(form, Unknown):
        return _unknown(form)
    hours, rest = divmod(form.uptime_s, 3600)
    up = f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
    return Text(f"{legible(form.version)}, up {up}, node {legible(form.node_key[:16])}", "green")


def _chain(chain: Maybe[ChainForm], now_s: int) -> Text:
    if isinstance(chain, Unknown):
        return _unknown(chain)
    if chain.seqno is None:
        return Text("not reached yet", "yellow")
    text = Text(f"block {chain.seqno}, {chain.age_s} s old")
    if chain.epoch is not None and chain.epoch_end_s is not None:
        left_s = chain.epoch_end_s - now_s
        when = f"ends in {_clock(left_s)}" if left_s > 0 else f"over since {_clock(-left_s)}"
        text.append(f"; epoch {chain.epoch} {when}", "bold")
    for trouble in filter(None, (chain.error, chain.clock)):
        text.append(f"; {legible(trouble)}", "yellow")
    return text


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _evidence(evidence: Maybe[EvidenceForm], now_s: int) -> Text:
    if isinstance(evidence, Unknown):
        return _unknown(evidence)
    if evidence.valid and evidence.valid_until_s is not None:
        text = Text(f"in force for {_clock(max(0, evidence.valid_until_s - now_s))}", "green")
    else:
        text = Text("none in force", "yellow")
    if evidence.alarm:
        text.append(f"; {legible(evidence.alarm)}", "yellow")
    if evidence.place_taken_by:
        what = "a GPU that this host proves" if evidence.is_gpu_taken else "this machine"
        text.append(f"; {legible(evidence.place_taken_by[:16])} holds the place on {what}", "red")
    return text


def _work(work: Maybe[WorkForm]) -> Text:
    if isinstance(work, Unknown):
        return _unknown(work)
    rate = "no window closed yet" if work.tokens_per_s is None else f"{work.tokens_per_s:,.1f} tokens/s"
    text = Text(rate, "bold").append(f"; {work.tokens:,} tokens in {work.tasks:,} tasks since start", "not bold")
    return text.append(f"; {legible(work.error)}", "red") if work.error else text


def _sources(sources: Maybe[list[SourceForm]], now_s: int) -> Iterator[tuple[str, Text]]:
    if isinstance(sources, Unknown):
        yield "sources", _unknown(sources)
        return
    for source in sources:
        name = legible(source.name)
        if source.error is not None:
            yield name, Text(legible(source.error), "red")
            continue
        read = "not read yet" if source.sampled_s is None else f"read {max(0, now_s - source.sampled_s)} s ago"
        text = Text(f"{legible(source.provenance or '')}, {read}")
        text.append(_gauges(source.gauges), "cyan")
        yield name, text
        for note in source.notes[:NOTES_SHOWN]:
            yield "", Text(legible(note), "yellow")


def _gauges(gauges: Mapping[str, float]) -> str:
    shown = [f"{legible(name)} {value:,.10g}" for name, value in sorted(gauges.items())[:GAUGES_SHOWN]]
    more = [f"and {len(gauges) - GAUGES_SHOWN} more"] if len(gauges) > GAUGES_SHOWN else []
    return "".join(f"; {each}" for each in [*shown, *more])


def _peers(status: Status) -> Text:
    if isinstance(status.peers, Unknown):
        return _unknown(status.peers)
    roster = [peer for peer in status.peers if peer.in_roster]
    connected = sum(peer.connected for peer in roster)
    text = Text(f"{connected} of {len(roster)} connected", "green" if connected == len(roster) else "yellow")
    if not isinstance(status.reach, Unknown):
        reach = status.reach
        style = "" if 3 * reach.weight > 2 * reach.total_weight else "red"
        text.append(f"; operators' weight in reach: {reach.weight} of {reach.total_weight}", style)
    return text


def _close(close: Maybe[CloseForm | None]) -> Text:
    if isinstance(close, Unknown):
        return _unknown(close)
    if close is None or close.total_weight <= 0:
        return Text("no epoch is closing", "dim")
    total, weight = close.total_weight, min(max(0, close.attested_weight), close.total_weight)
    quorum = 2 * total // 3 + 1
    filled = BAR_WIDTH * weight // total
    view = "-" if close.view is None else close.view
    return Text.assemble(
        (f"epoch {close.epoch} ", "bold"),
        f"view {view}, {close.observations} observations\n",
        ("█" * filled, "green" if weight >= quorum else "yellow"),
        ("░" * (BAR_WIDTH - filled), "dim"),
        f" {weight} of {total}, quorum {quorum}",
        ("  certified" if close.certified else "", "bold green"),
    )


def _settled(status: Status) -> Text:
    if isinstance(status.settled, Unknown):
        return _unknown(status.settled)
    if not status.settled.epoch:
        return Text("nothing yet", "dim")
    text = Text(f"epoch {status.settled.epoch}", "bold")
    own = status.own
    if isinstance(own, Unknown) or own is None:
        return text
    share = f"{100 * own.score / own.total_score:.1f} %" if own.total_score else "unknown"
    text.append(f"; own share of epoch {own.epoch} {share}, {own.tokens:,} tokens, {ton(own.earned_nanoton)} in all")
    if not isinstance(status.claimable_nanoton, Unknown):
        text.append(f", {ton(status.claimable_nanoton)} to claim")
    for reason in own.reasons[:NOTES_SHOWN]:
        text.append(f"\n{legible(reason)}", "yellow")
    return text


def _findings(findings: Sequence[Finding] | None) -> Iterator[tuple[str, Text]]:
    if findings is None:
        yield "doctor", Text("looking", "dim")
        return
    shown = [each for each in worst_first(findings) if not each.is_fine]
    if not shown:
        yield "doctor", Text("nothing is wrong", COLOURS[Severity.OK])
    for finding in shown[:FINDINGS_SHOWN]:
        yield "doctor", Text("\n").join(finding_lines(finding))


def _unknown(unknown: Unknown) -> Text:
    return Text(legible(unknown.reason), "dim")
