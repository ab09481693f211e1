"""The protocol with the child, and what becomes of one that does not keep it; the child is a fake, the clock too."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock

from agent.errors import InvalidSourceError, SourceUnavailableError
from agent.meter.nvml import NvmlSource
from agent.meter.nvml_process import (
    ANSWER_TIMEOUT_S,
    OPEN_TIMEOUT_S,
    PAUSE_MAX_S,
    STEADY_S,
    STUCK_MAX,
    ChildProcess,
)
from agent.meter.nvml_report import (
    LINE_BYTES_MAX,
    Failure,
    Frame,
    GpuReading,
    LostGpu,
    Opened,
    Report,
    encode_frame,
)
from gossip.records import Source

OPENED = Opened(driver="550.90.07")
GOOD = Report(gpus=(GpuReading(uuid="GPU-1", energy_mj=5, busy_ms=3),))
GPU_LOST = Report(gpus=GOOD.gpus, lost=(LostGpu(index=1, code=15, message="GPU is lost"),))
SILENCE = b""


class FakeChild:
    """Says `first` at once, then one of `answers` at each question; the last one again and again."""

    def __init__(self, first: Frame | bytes, answers: Sequence[Frame | bytes | int]) -> None:
        self.pid = 4711
        self.stdin = MemorySendStream(send_all_hook=self._answer)
        self.stdout = MemoryReceiveStream()
        self.questions = 0
        self.is_killed = False
        self.is_undying = False
        self.is_reaped = False
        self._answers = answers
        self._status: int | None = None
        self._ended = trio.Event()
        self.say(first)

    def say(self, words: Frame | bytes) -> None:
        self.stdout.put_data(words if isinstance(words, bytes) else encode_frame(words))

    async def _answer(self) -> None:
        if self._status is not None:
            raise trio.BrokenResourceError
        answer = self._answers[min(self.questions, len(self._answers) - 1)]
        self.questions += 1
        if isinstance(answer, int):
            self.end(answer)
        else:
            self.say(answer)

    def end(self, status: int) -> None:
        if self._status is None:
            self._status = status
            self.stdout.put_eof()
            self._ended.set()

    def kill(self) -> None:
        self.is_killed = True
        if not self.is_undying:
            self.end(-9)

    def poll(self) -> int | None:
        return self._status

    async def wait(self) -> int:
        await self._ended.wait()
        assert self._status is not None
        self.is_reaped = True
        return self._status


class Children:
    """Starts fakes; each of `plans` is what one says, the last one for all further."""

    def __init__(self, *plans: Sequence[Frame | bytes | int], is_undying: bool = False) -> None:
        self.started: list[FakeChild] = []
        self._plans = plans
        self._is_undying = is_undying

    async def __call__(self) -> ChildProcess:
        first, *answers = self._plans[min(len(self.started), len(self._plans) - 1)]
        assert not isinstance(first, int)
        child = FakeChild(first, answers or [SILENCE])
        child.is_undying = self._is_undying
        self.started.append(child)
        await trio.lowlevel.checkpoint()
        return child

    @property
    def last(self) -> FakeChild:
        return self.started[-1]


async def failure_of(source: NvmlSource) -> str:
    with pytest.raises((SourceUnavailableError, InvalidSourceError)) as caught:
        await source.sample()
    return str(caught.value)


async def test_one_child_answers_every_question(autojump_clock: MockClock) -> None:
    children = Children([OPENED, GOOD])
    source = NvmlSource(children)
    for _ in range(3):
        sample = await source.sample()
        assert sample.counters.series == {'energy_mj{uuid="GPU-1"}': 5, 'gpu_busy_ms{uuid="GPU-1"}': 3}
    assert len(children.started) == 1
    assert children.last.questions == 3
    assert (source.source, source.instance) == (Source.NVML, 0)
    await source.aclose()
    assert children.last.is_killed


async def test_a_line_may_come_in_pieces(autojump_clock: MockClock) -> None:
    line = encode_frame(GOOD)
    children = Children([OPENED, line[:10]])
    source = NvmlSource(children)
    async with trio.open_nursery() as nursery:

        async def the_rest() -> None:
            await trio.sleep(1)
            children.last.say(line[10:])

        nursery.start_soon(the_rest)
        sample = await source.sample()
    assert sample.provenance == "nvml 550.90.07"


async def test_a_child_that_is_silent_is_killed_in_time_and_replaced_after_a_pause(autojump_clock: MockClock) -> None:
    children = Children([OPENED, GOOD, SILENCE], [OPENED, GOOD])
    source = NvmlSource(children)
    await source.sample()
    before = trio.current_time()
    assert "did not answer within 5 s" in await failure_of(source)
    assert trio.current_time() - before == ANSWER_TIMEOUT_S
    assert children.last.is_killed
    assert "next try in 1 s" in await failure_of(source)
    assert len(children.started) == 1
    await trio.sleep(1)
    await source.sample()
    assert len(children.started) == 2


async def test_pauses_double_up_to_a_limit(autojump_clock: MockClock) -> None:
    children = Children([Failure(code=999, message="Unknown Error")])
    source = NvmlSource(children)
    starts = []
    while trio.current_time() < 2000:
        before = len(children.started)
        await failure_of(source)
        starts += [trio.current_time()] * (len(children.started) - before)
        await trio.sleep(1)
    pauses = [after - before for before, after in itertools.pairwise(starts)]
    assert pauses[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert set(pauses[9:]) == {PAUSE_MAX_S}


async def test_after_steady_service_pauses_begin_anew(autojump_clock: MockClock) -> None:
    failing: list[Frame | bytes] = [OPENED, SILENCE]
    children = Children(failing, failing, failing, [OPENED, GOOD, 1], [OPENED, GOOD])
    source = NvmlSource(children)
    while len(children.started) < 4:
        with pytest.raises(SourceUnavailableError):
            await source.sample()
            raise SourceUnavailableError("the fourth child answers")
        await trio.sleep(1)
    await trio.sleep(STEADY_S + 1)
    await failure_of(source)
    assert "next try in 1 s" in await failure_of(source)


@pytest.mark.parametrize(
    "plan",
    [
        [b"hello\n"],
        [b"\xff\xfe\n"],
        [GOOD],
        [OPENED, OPENED],
        [OPENED, b"{}\n"],
        [OPENED, b'{"type":"Report","gpus":[{"uuid":"GPU-1","busy_percent":4000000000}]}\n'],
        [OPENED, b"x" * (LINE_BYTES_MAX + 1)],
    ],
)
async def test_what_cannot_be_ends_the_child(autojump_clock: MockClock, plan: list[Frame | bytes]) -> None:
    children = Children(plan)
    source = NvmlSource(children)
    with pytest.raises(InvalidSourceError):
        await source.sample()
    assert children.last.is_killed
    assert "next try in 1 s" in await failure_of(source)


async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next(autojump_clock: MockClock) -> None:
    children = Children([OPENED, encode_frame(GOOD) * 2])
    source = NvmlSource(children)
    await source.sample()
    with pytest.raises(InvalidSourceError, match="without being asked"):
        await source.sample()
    assert children.last.is_killed


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (12, "passed through to the guest"),
        (9, "passed through to the guest"),
        (18, "was updated and not loaded anew"),
        (999, "Reason (999)"),
    ],
)
async def test_a_driver_that_fails_is_explained(autojump_clock: MockClock, code: int, words: str) -> None:
    source = NvmlSource(Children([Failure(code=code, message="Reason")]))
    with pytest.raises(SourceUnavailableError) as caught:
        await source.sample()
    assert words in str(caught.value)
    assert words in await failure_of(source)  # and while it is not tried again


async def test_a_failure_between_two_questions_is_not_lost(autojump_clock: MockClock) -> None:
    children = Children([OPENED, GOOD, SILENCE])
    source = NvmlSource(children)
    await source.sample()
    children.last.say(Failure(code=18, message="RM mismatch"))
    children.last.end(1)
    assert "was updated" in await failure_of(source)


@pytest.mark.parametrize(("status", "words"), [(-11, "was ended by SIGSEGV"), (1, "ended with status 1")])
async def test_a_child_that_crashes_says_how(autojump_clock: MockClock, status: int, words: str) -> None:
    children = Children([OPENED, GOOD, status])
    source = NvmlSource(children)
    await source.sample()
    assert words in await failure_of(source)


async def test_a_driver_that_takes_long_to_open_is_waited_for(autojump_clock: MockClock) -> None:
    children = Children([SILENCE, GOOD])
    source = NvmlSource(children)
    for _ in range(5):
        assert "still initialises" in await failure_of(source)
    assert not children.last.is_killed
    children.last.say(OPENED)
    await source.sample()
    assert len(children.started) == 1


async def test_the_first_answer_has_its_own_time_after_opening(autojump_clock: MockClock) -> None:
    children = Children([SILENCE, SILENCE])
    source = NvmlSource(children)

    async def speak() -> None:
        await trio.sleep(0.9 * ANSWER_TIMEOUT_S)
        children.last.say(OPENED)
        await trio.sleep(0.9 * ANSWER_TIMEOUT_S)
        children.last.say(GOOD)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        sample = await source.sample()
    assert sample.gauges["gpus"] == 1


async def test_a_driver_that_does_not_open_at_all_is_given_up(autojump_clock: MockClock) -> None:
    children = Children([SILENCE])
    source = NvmlSource(children)
    while not children.started or not children.last.is_killed:
        words = await failure_of(source)
    assert "did not answer" in words
    assert trio.current_time() == OPEN_TIMEOUT_S


async def test_cancelled_nothing_is_left_behind_and_the_next_sample_does_not_wait(autojump_clock: MockClock) -> None:
    children = Children([OPENED, SILENCE], [OPENED, GOOD])
    source = NvmlSource(children)
    with trio.move_on_after(1) as scope:
        await source.sample()
    assert scope.cancelled_caught
    assert children.last.is_killed
    assert children.last.is_reaped
    with pytest.raises(trio.ClosedResourceError):
        await children.last.stdout.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await children.last.stdin.send_all(b"?")
    await source.sample()
    assert len(children.started) == 2


async def test_processes_that_cannot_be_killed_are_bounded(autojump_clock: MockClock) -> None:
    children = Children([OPENED, SILENCE], is_undying=True)
    source = NvmlSource(children)
    words = ""
    while "cannot be killed" not in words:
        words = await failure_of(source)
        await trio.sleep(1)
    assert len(children.started) == STUCK_MAX
    await trio.sleep(10 * PAUSE_MAX_S)
    assert "cannot be killed: restart the host" in await failure_of(source)
    assert len(children.started) == STUCK_MAX
    children.started[0].end(-9)  # its call into the driver returned at last
    await failure_of(source)
    assert len(children.started) == STUCK_MAX + 1


async def test_with_a_gpu_lost_the_others_count_and_the_child_is_replaced(autojump_clock: MockClock) -> None:
    children = Children([OPENED, GOOD, GPU_LOST], [OPENED, GPU_LOST], [OPENED, GOOD])
    source = NvmlSource(children)
    seen = []
    for _ in range(6):
        sample = await source.sample()
        seen.append((int(sample.gauges["gpus_lost"]), len(children.started)))
        assert sample.counters.series['energy_mj{uuid="GPU-1"}'] == 5
        await trio.sleep(0.9)
    assert seen == [(0, 1), (1, 1), (1, 1), (1, 2), (1, 2), (1, 2)]
    await trio.sleep(1)
    assert (await source.sample()).gauges["gpus_lost"] == 0
    assert [child.is_killed for child in children.started] == [True, True, False]


async def test_no_gpu_that_answers_is_no_reading(autojump_clock: MockClock) -> None:
    assert "passed through" in await failure_of(NvmlSource(Children([OPENED, Report(gpus=())])))
    lost = Report(gpus=(), lost=GPU_LOST.lost)
    assert "GPU 1: lost" in await failure_of(NvmlSource(Children([OPENED, lost])))


async def test_a_process_that_cannot_be_started_is_unavailable(autojump_clock: MockClock) -> None:
    async def start() -> ChildProcess:
        raise OSError("too many processes")

    with pytest.raises(SourceUnavailableError, match="too many processes"):
        await NvmlSource(start).sample()
