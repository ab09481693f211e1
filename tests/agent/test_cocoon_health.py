"""The health service in a guest: framing, what its texts say, and that nothing it sends breaks the reader."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from cocoon_stage import guest_of, health_of, worker_model
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from agent.devnet.cocoon_texts import COMMIT, health_answer
from agent.errors import InvalidSourceError, SourceUnavailableError
from agent.meter.cocoon_health import (
    ANSWER_BYTES_MAX,
    GuestGpu,
    GuestService,
    parse_gpus,
    parse_health,
    parse_tdx,
    read_health,
    vsock_guest,
)

STATUS, GPU, TDX = (health_answer(worker_model(), request) for request in ("status", "gpu", "tdx"))
REFUSED = '{"error":"Unknown command. Available: status, logs"}'


async def test_a_guest_tells_services_gpus_and_tdx(nursery: trio.Nursery) -> None:
    health = await read_health(health_of(nursery, worker_model()))
    assert (health.is_ok, health.failing, health.build_commit) == (True, (), COMMIT)
    assert health.services == (
        GuestService(name="cocoon-worker-runner.service", state="active", is_critical=None, restarts=1),
        GuestService(name="cocoon-sglang.service", state="active", is_critical=None, restarts=0),
        GuestService(name="docker.service", state="inactive", is_critical=False, restarts=0),
    )
    assert health.gpus == (
        GuestGpu(
            model="NVIDIA H100 PCIe",
            utilization_percent=0,
            memory_used_tenth_gib=625,
            memory_total_tenth_gib=796,
            temperature_c=55,
            power_w=210,
            power_limit_w=350,
        ),
    )
    assert health.tdx is not None
    assert {len(register) for register in (health.tdx.mr_td, *health.tdx.rtmr)} == {48}
    assert (len(health.tdx.image_hash), health.tdx.is_image_verified) == (32, True)


async def test_a_guest_in_trouble_says_which_service_fails(nursery: trio.Nursery) -> None:
    model = worker_model()
    model.is_engine_connected = False
    health = await read_health(health_of(nursery, model))
    assert (health.is_ok, health.failing) == (False, ("cocoon-sglang.service is failed",))
    assert health.services[1] == GuestService(
        name="cocoon-sglang.service", state="failed", is_critical=True, restarts=0
    )


def answering(*texts: str | bytes) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    """Serve these answers, whatever is asked, then hang up."""

    async def serve(stream: trio.abc.Stream) -> None:
        async with stream:
            for text in texts:
                raw = text if isinstance(text, bytes) else text.encode()
                await stream.receive_some(100)
                await stream.send_all(len(raw).to_bytes(4, "little") + raw)

    return serve


async def test_what_a_guest_cannot_tell_is_none(nursery: trio.Nursery) -> None:
    health = await read_health(guest_of(nursery, answering(STATUS, REFUSED, REFUSED)))
    assert (health.gpus, health.tdx, health.is_ok) == (None, None, True)
    no_smi = "=== GPU METRICS ===\nError: Command exited with code 1\n(nvidia-smi not available or no GPUs detected)\n"
    assert parse_gpus(no_smi) is None
    assert parse_gpus("=== GPU METRICS ===\nNo GPUs detected\n") == ()
    no_tdx = "=== TDX STATUS ===\n\nError generating TDX report: none\nRTMR0: (not available)\n"
    assert parse_tdx(no_tdx) is None


def test_an_image_may_be_another_or_not_compared() -> None:
    verified = "  Image hash: + VERIFIED\n"
    other = parse_tdx(TDX.replace(verified, "  Image hash: - MISMATCH (stored != calculated) (a != b)\n"))
    silent = parse_tdx(TDX.replace(verified, ""))
    assert other is not None
    assert silent is not None
    assert (other.is_image_verified, silent.is_image_verified) == (False, None)


@pytest.mark.parametrize(
    ("status", "gpu", "tdx"),
    [
        ("", GPU, TDX),
        (STATUS.replace("Status: OK", "Status: well"), GPU, TDX),
        (STATUS + "  [+] a.service: active\n" * 100, GPU, TDX),
        (STATUS + "  - failing\n" * 100, GPU, TDX),
        (STATUS, GPU.replace("62.5 GB", "many GB"), TDX),
        (STATUS, GPU.replace("62.5 GB", "9" * 2000 + ".0 GB"), TDX),
        (STATUS, GPU.replace("55°C", "hot"), TDX),
        (STATUS, GPU.replace("0%\n", "٣%\n", 1), TDX),
        (STATUS, GPU.replace("  Power:       210W / 350W\n", ""), TDX),
        (STATUS, "GPU 0:\n" * 17, TDX),
        (STATUS, GPU, TDX.replace("MRTD: ", "MRTD: 0")),
        (STATUS, GPU, TDX.replace("RTMR3: ", "RTMR4: ")),
        (STATUS, GPU, TDX.replace("image_hash: ", "image_hash: zz")),
    ],
)
def test_malformed_texts_are_refused(status: str, gpu: str, tdx: str) -> None:
    with pytest.raises(InvalidSourceError, match="guest: "):
        parse_health(status, gpu, tdx)


@given(st.data())
def test_no_text_breaks_the_reader(data: st.DataObject) -> None:
    texts = [STATUS, GPU, TDX]
    chosen = data.draw(st.integers(0, 2))
    text = texts[chosen]
    place = data.draw(st.integers(0, len(text)))
    texts[chosen] = text[:place] + data.draw(st.text(max_size=20)) + text[place + data.draw(st.integers(0, 20)) :]
    try:
        told: object = parse_health(*texts)
    except InvalidSourceError as error:
        told = error
    assert told is not None


# ---- the stream ----


async def test_an_answer_comes_in_pieces(nursery: trio.Nursery) -> None:
    async def drip(stream: trio.abc.Stream) -> None:
        for text in (STATUS, GPU, TDX):
            await stream.receive_some(100)
            for byte in len(text.encode()).to_bytes(4, "little") + text.encode():
                await stream.send_all(bytes([byte]))

    assert (await read_health(guest_of(nursery, drip))).is_ok


@pytest.mark.parametrize(
    ("answers", "error", "message"),
    [
        ((), SourceUnavailableError, "guest: it"),  # hung up, or is not reached: whoever is first
        ((STATUS,), SourceUnavailableError, "guest: it"),
        ((b"\xff", GPU, TDX), InvalidSourceError, "no UTF-8"),
        ((REFUSED, GPU, TDX), InvalidSourceError, "refuses to tell its status: Unknown command"),
        ((b"x" * (ANSWER_BYTES_MAX + 1),), InvalidSourceError, "at most"),
    ],
)
async def test_bad_conversations_are_typed_errors(
    nursery: trio.Nursery, answers: tuple[str | bytes, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await read_health(guest_of(nursery, quietly(answering(*answers))))


def quietly(serve: Callable[[trio.abc.Stream], Awaitable[None]]) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    """Let the reader hang up first."""

    async def served(stream: trio.abc.Stream) -> None:
        try:
            await serve(stream)
        except trio.BrokenResourceError:
            await stream.aclose()

    return served


async def test_a_guest_that_hangs_up_in_the_middle_is_unavailable(nursery: trio.Nursery) -> None:
    async def cut(stream: trio.abc.Stream) -> None:
        async with stream:
            await stream.receive_some(100)
            await stream.send_all(b"\x0a\0\0\0abc")

    with pytest.raises(SourceUnavailableError, match="hung up in the middle"):
        await read_health(guest_of(nursery, cut))


async def test_a_guest_that_says_nothing_is_given_up(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    async def silent(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    with pytest.raises(SourceUnavailableError, match="no answer within 10 s"):
        await read_health(guest_of(nursery, silent))


async def test_a_guest_that_is_not_there_is_unavailable() -> None:
    async def refused() -> trio.abc.Stream:
        raise ConnectionRefusedError("nobody")

    with pytest.raises(SourceUnavailableError, match="not reached: nobody"):
        await read_health(refused)


@pytest.mark.slow
async def test_a_guest_that_vsock_does_not_know_is_unavailable() -> None:
    """CID 2556: no guest of this machine has it. The kernel may take two seconds to say so."""
    with pytest.raises(SourceUnavailableError, match="its health service is not reached"):
        await read_health(vsock_guest(255))
