"""An engine's whole life, read through the parser and the counters: what is credited is what was done.

The generator knows every token that its engine counted, in which run, and when somebody looked. What a reader has
to lose follows from that (`agent.meter.counters`, rules 1 to 5); all else must be credited, and never more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.meter.counters import CounterState, Deltas, advance
from agent.meter.engine import (
    CACHED_TOKENS,
    GENERATION_TOKENS,
    PROMPT_TOKENS,
    REQUESTS_FAILED,
    REQUESTS_FINISHED,
    parse_exposition,
)

Series: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
"""Sample name and labels."""
CLIENTS = ("0", "1", "2")
TOLERANCE_S = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a request costs; `client` stands for whatever makes an engine keep series apart."""

    client: str
    prompt: int
    cached: int
    generated: int
    aborted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How an engine counts: `tally(request, version)` is what a request adds to which series."""

    tally: Callable[[Request, int], Mapping[Series, int]]
    units: Mapping[str, tuple[str, ...]]
    """Sample name -> the units that it counts."""
    tells_start: bool = False
    digits: int = 17


def vllm(request: Request, version: int) -> Mapping[Series, int]:
    model = ("model_name", f"m{version}")
    base = (model,) if version == 0 else (("engine", request.client), model)
    reason = "abort" if request.aborted else "stop"
    return {
        ("vllm:prompt_tokens_total", base): request.prompt,
        ("vllm:prompt_tokens_cached_total", base): request.cached,
        ("vllm:generation_tokens_total", base): request.generated,
        ("vllm:request_success_total", (("finished_reason", reason), *base)): 1,
    }


def sglang(request: Request, version: int) -> Mapping[Series, int]:
    model = ("model_name", "m")
    base = (model,) if version == 0 else (("is_streaming", request.client), model, ("v", str(version)))
    return {
        ("sglang:prompt_tokens_total", base): request.prompt,
        ("sglang:cached_tokens_total", (("cache_source", request.client), model)): request.cached,
        ("sglang:generation_tokens_total", base): request.generated,
        ("sglang:num_requests_total", base): 1,
        ("sglang:num_aborted_requests_total", (model,)): int(request.aborted),
    }


def tgi(request: Request, version: int) -> Mapping[Series, int]:
    drift = () if version == 0 else (("v", str(version)),)
    if request.aborted:
        return {
            ("tgi_request_input_length_sum", ()): request.prompt,
            ("tgi_request_failure", (("err", request.client), *drift)): 1,
        }
    return {
        ("tgi_request_input_length_sum", ()): request.prompt,
        ("tgi_request_generated_tokens_sum", ()): request.generated,
        ("tgi_request_success", drift): 1,
    }


def llamacpp(request: Request, _: int) -> Mapping[Series, int]:
    return {
        ("llamacpp:prompt_tokens_total", ()): request.prompt,
        ("llamacpp:prompt_tokens_cached_total", ()): request.cached,
        ("llamacpp:tokens_predicted_total", ()): request.generated,
    }


VLLM_UNITS = {
    "vllm:prompt_tokens_total": (PROMPT_TOKENS,),
    "vllm:prompt_tokens_cached_total": (CACHED_TOKENS,),
    "vllm:generation_tokens_total": (GENERATION_TOKENS,),
    "vllm:request_success_total": (REQUESTS_FINISHED,),
}
KINDS = {
    "vllm": Kind(tally=vllm, units=VLLM_UNITS, tells_start=True),
    "vllm of several processes": Kind(tally=vllm, units=VLLM_UNITS),
    "sglang": Kind(
        tally=sglang,
        units={
            "sglang:prompt_tokens_total": (PROMPT_TOKENS,),
            "sglang:cached_tokens_total": (CACHED_TOKENS,),
            "sglang:generation_tokens_total": (GENERATION_TOKENS,),
            "sglang:num_requests_total": (REQUESTS_FINISHED,),
            "sglang:num_aborted_requests_total": (REQUESTS_FAILED,),
        },
    ),
    "tgi": Kind(
        tally=tgi,
        units={
            "tgi_request_input_length_sum": (PROMPT_TOKENS,),
            "tgi_request_generated_tokens_sum": (GENERATION_TOKENS,),
            "tgi_request_success": (REQUESTS_FINISHED,),
            "tgi_request_failure": (REQUESTS_FAILED,),
        },
    ),
    "llamacpp": Kind(
        tally=llamacpp,
        units={
            "llamacpp:prompt_tokens_total": (PROMPT_TOKENS,),
            "llamacpp:prompt_tokens_cached_total": (CACHED_TOKENS, PROMPT_TOKENS),
            "llamacpp:tokens_predicted_total": (GENERATION_TOKENS,),
        },
        digits=6,
    ),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@dataclass(slots=True)
class Life:
    """An engine from its first run on, what its reader has to lose, and what a real reader was credited."""

    kind: Kind
    now_s: int = 1_700_000_000
    version: int = 0
    start_s: int = 1_600_000_000
    run: dict[Series, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    credited: dict[str, int] = field(default_factory=dict)
    read_at: tuple[int, int] | None = None
    """When the last reading was made, and the start of the run that was read."""
    seen: dict[Series, int] = field(default_factory=dict)
    """What the readings of this run showed last."""
    before: dict[Series, int] = field(default_factory=dict)
    """The same of runs that a reader cannot tell from this one but by a decrease."""
    reader: CounterState | None = None

    def work(self, request: Request) -> None:
        for series, amount in self.kind.tally(request, self.version).items():
            self.run[series] = self.run.get(series, 0) + amount
            self._book(self.total, series, amount)

    def restart(self, *, upgraded: bool = False, zeros: bool = False) -> None:
        """End the run; what was not read of it is lost (rule 5). With `zeros` the next one prints all it may count."""
        for series, value in self.run.items():
            self._book(self.lost, series, value - self.seen.get(series, 0))
        self.before |= self.seen
        self.run, self.seen, self.start_s = {}, {}, self.now_s
        self.version += upgraded
        if zeros:
            for client in CLIENTS:
                for aborted in (False, True):
                    request = Request(client=client, prompt=0, cached=0, generated=0, aborted=aborted)
                    self.run |= dict.fromkeys(self.kind.tally(request, self.version), 0)

    def read(self) -> None:
        self._lose()
        sample = parse_exposition(self.exposition()).counters
        self.reader, outcome = advance(self.reader, sample, self.now_s)
        for unit, amount in outcome.amounts.items() if isinstance(outcome, Deltas) else ():
            self.credited[unit] = self.credited.get(unit, 0) + amount

    def fail(self) -> None:
        self.reader, _ = advance(self.reader, None, self.now_s)

    def exposition(self) -> str:
        lines = [f"# HELP {name} x\n# TYPE {name} counter" for name in self.kind.units]
        for (name, labels), value in self.run.items():
            pairs = ",".join(f'{key}="{text}"' for key, text in labels)
            shown = repr(float(value)) if self.kind.digits == 17 else f"{value:.{self.kind.digits}g}"
            lines.append(f"{name}{{{pairs}}} {shown}" if pairs else f"{name} {shown}")
        if self.kind.tells_start:
            lines.append(f"vllm:prompt_tokens_created {self.start_s}.5\nprocess_start_time_seconds {self.start_s}.25")
        return "\n".join(lines) + "\n"

    def _lose(self) -> None:
        """Book what the reading that comes now cannot credit, though it shows it."""
        if not self.seen and self.read_at is not None and self.kind.tells_start:
            read_s, start_s = self.read_at
            if abs(self.start_s - start_s) > TOLERANCE_S:
                self.before = {}
                if self.start_s < read_s:
                    self._baseline()  # rule 4: by the clock, it ran already when another one was read
        if self.read_at is None:
            self._baseline()  # rule 1
        for series, value in self.run.items():
            if series not in self.seen and value >= self.before.get(series, 0):
                self._book(self.lost, series, self.before.get(series, 0))  # rule 2: no decrease shows a new run
        self.seen = dict(self.run)
        self.before = {series: value for series, value in self.before.items() if series not in self.seen}
        self.read_at = self.now_s, self.start_s

    def _baseline(self) -> None:
        for series, value in self.run.items():
            self._book(self.lost, series, value)
        self.seen, self.before = dict(self.run), {}

    def _book(self, book: dict[str, int], series: Series, amount: int) -> None:
        name, labels = series
        failed = ("finished_reason", "abort") in labels
        for unit in (REQUESTS_FAILED,) if failed else self.kind.units[name]:
            book[unit] = book.get(unit, 0) + amount


requests = st.builds(
    Request,
    client=st.sampled_from(CLIENTS),
    prompt=st.integers(1, 5000),
    cached=st.integers(0, 5000),
    generated=st.integers(0, 5000),
    aborted=st.booleans(),
)
# What is asked of the engine, what becomes of it then, and by how much the clock moves: time passes, or it is set.
stretches = st.lists(
    st.tuples(
        st.lists(requests, max_size=3),
        st.sampled_from(["read", "read", "fail", "restart", "upgrade"]),
        st.one_of(st.integers(0, 60), st.integers(-40, 0), st.integers(-4000, 4000)),
    ),
    max_size=20,
)


@each_kind
@given(stretches=stretches)
def test_credited_is_all_but_what_the_rules_lose(
    kind: Kind, stretches: Sequence[tuple[Sequence[Request], str, int]]
) -> None:
    life = Life(kind)
    for asked, happening, step_s in [*stretches, ((), "read", 0)]:
        for request in asked:
            life.work(request)
        match happening:
            case "read":
                life.read()
            case "fail":
                life.fail()
            case _:
                life.restart(upgraded=happening == "upgrade")
        life.now_s += step_s
    for unit in life.total:
        assert life.credited.get(unit, 0) == life.total[unit] - life.lost.get(unit, 0)
        assert life.credited.get(unit, 0) <= life.total[unit]


runs = st.lists(
    st.tuples(st.booleans(), st.lists(st.one_of(st.just("fail"), st.lists(requests, max_size=6)), max_size=6)),
    min_size=1,
    max_size=5,
)


@each_kind
@given(runs=runs)
def test_nothing_is_lost_where_every_end_was_read(
    kind: Kind, runs: Sequence[tuple[bool, Sequence[str | Sequence[Request]]]]
) -> None:
    life = Life(kind)
    life.read()
    for upgraded, steps in runs:
        life.now_s += 30
        # A run that tells no start time is known by its zeros; one that does may have grown before it is read.
        life.restart(upgraded=upgraded, zeros=not kind.tells_start)
        if not kind.tells_start:
            life.read()
        for step in steps:
            life.now_s += 30
            if step == "fail":
                life.fail()
                continue
            for request in step:
                assert isinstance(request, Request)
                life.work(request)
            life.read()
    assert {unit: life.credited.get(unit, 0) for unit in life.total} == life.total


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=20))
def test_six_digits_cost_no_more_than_their_last_one(amounts: Sequence[int]) -> None:
    life = Life(KINDS["llamacpp"])
    request = Request(client="0", prompt=0, cached=0, generated=0, aborted=False)
    for amount in amounts:
        life.work(replace(request, generated=amount))
        life.read()
    done = life.total[GENERATION_TOKENS]
    step = 10 ** max(0, len(str(done)) - KINDS["llamacpp"].digits)
    counted_from = amounts[0]
    assert abs(life.credited[GENERATION_TOKENS] - (done - counted_from)) <= step


tenants = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 11), st.integers(0, 1000), st.booleans()), min_size=1, max_size=40
)


@given(tenants)
def test_labels_of_clients_beyond_the_bound_count_nothing_twice(steps: Sequence[tuple[str, int, int, bool]]) -> None:
    values: dict[tuple[str, int], int] = {}
    done, credited, unseen, reader = 0, 0, 0, None
    is_steady = True
    for now_s, (process, tenant, tokens, restarts) in enumerate(steps):
        if restarts:  # one of two processes behind one address, which nothing but a label tells apart
            values = {series: value for series, value in values.items() if series[0] != process}
            is_steady = False
        values[process, tenant] = values.get((process, tenant), 0) + tokens
        done += tokens
        lines = [f'sglang:prompt_tokens_total{{p="{p}",tenant="{t}"}} {n}' for (p, t), n in values.items()]
        with patch("agent.meter.engine.SERIES_MAX", 6):
            sample = parse_exposition("\n".join(lines)).counters
        reader, outcome = advance(reader, sample, now_s)
        assert len(sample.series) <= 6
        if isinstance(outcome, Deltas):
            credited += outcome.amounts[PROMPT_TOKENS]
        else:  # the first reading, and the one at which summing began
            unseen += tokens
        assert credited <= done
    if is_steady:
        assert credited == done - unseen
