"""From a served query to tokens on chain: a stand-in worker counts, its proxy's key pays, an operator reads the same.

The embedded chain runs in this process; the worker is a process of its own in the last test.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from cocoon_stage import URL, client_of, earnings, owed, proxy_key, source_of
from emulated_chain import EmulatedChain, open_storage, wallet_of
from trio.testing import MockClock

from agent.devnet.cocoon_model import WorkerModel
from agent.devnet.cocoon_worker import WorkerServer, generate_work
from agent.meter.cocoon import ADJUSTED_TOKENS, CocoonSource
from agent.meter.cocoon_health import read_health
from contracts import layout
from contracts.cocoon import WorkerRules, appraise_worker, read_worker
from contracts.devchain.cocoon_worker import PAYOUT_NANOTON, payout_body, stand_in_code, stand_in_init
from contracts.model import NANO, Address
from contracts.wallet import OutMessage

OWNER, PROXY_WALLET = "worker's owner", "proxy's wallet"
RULES = WorkerRules(
    code_hashes=frozenset({stand_in_code().hash}), proxies=frozenset({proxy_key(0).public, proxy_key(1).public})
)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[EmulatedChain]:
    with open_storage(tmp_path) as storage:
        yield EmulatedChain(storage, {wallet_of(PROXY_WALLET): 1000 * NANO})


async def deploy(chain: EmulatedChain, count: int) -> list[Address]:
    """A worker contract with each of `count` proxies."""
    messages = []
    for index in range(count):
        books = earnings(index)
        init = stand_in_init(owner=wallet_of(OWNER), proxy=books.proxy, proxy_public_key=books.proxy_public_key)
        messages.append(
            OutMessage(dest=layout.address_of(init), value_nanoton=NANO // 2, body=None, bounce=False, state_init=init)
        )
    await chain.wallet(PROXY_WALLET).transfer(messages)
    chain.advance(1)
    return [message.dest for message in messages]


async def pay(chain: EmulatedChain, client: httpx.AsyncClient, url: str = URL) -> int:
    """What a proxy does from time to time: ask what it owes, sign for it, have it land, tell the worker."""
    total = 0
    for index, proxy in enumerate((await owed(client, url))["proxies"]):
        tokens = proxy["owed_tokens"]
        total += tokens
        if tokens > proxy["paid_tokens"]:
            worker = Address.parse(proxy["worker"])
            fields = {"worker": worker, "tokens": tokens, "query_id": 1, "excesses_to": wallet_of(PROXY_WALLET)}
            message = OutMessage(
                dest=worker, value_nanoton=PAYOUT_NANOTON, body=payout_body(proxy_key(index), **fields)
            )
            await chain.wallet(PROXY_WALLET).transfer([message])
            note = {"proxy_public_key": proxy["proxy_public_key"], "tokens": tokens}
            assert (await client.post(f"{url}/devnet/paid", json=note)).status_code == 200
    chain.advance(1)
    return total


async def on_chain(chain: EmulatedChain, workers: Sequence[Address]) -> int:
    """What an operator finds: only contracts that count for this owner."""
    read = [await read_worker(chain, worker) for worker in workers]
    for worker in read:
        appraise_worker(worker, RULES, wallet_of(OWNER))
    return sum(worker.tokens for worker in read)


@pytest.mark.parametrize("schema", [1, 2])
async def test_tokens_on_chain_are_those_that_were_counted(
    chain: EmulatedChain, schema: int, autojump_clock: MockClock
) -> None:
    workers = await deploy(chain, 2)
    books = [earnings(index, worker) for index, worker in enumerate(workers)]
    model = WorkerModel(5, wallet_of(OWNER), books, error_per_mille=100)
    async with client_of(WorkerServer(model, schema=schema)) as client:
        source = source_of(client)
        counted = 0
        for _ in range(3):
            with trio.move_on_after(20):
                await generate_work(model, 1, rate=3)
            model.flush()
            counted += (await source.sample()).counters.series[ADJUSTED_TOKENS]
            paid = await pay(chain, client)
            assert paid == counted == await on_chain(chain, workers) > 0
            model.restart()
        await source.sample()
    assert source.report is not None
    assert sum(proxy.paid_out for proxy in source.report.proxies) == counted


async def test_what_was_not_yet_paid_is_not_on_chain(chain: EmulatedChain, autojump_clock: MockClock) -> None:
    workers = await deploy(chain, 1)
    model = WorkerModel(5, wallet_of(OWNER), [earnings(0, workers[0])])
    async with client_of(WorkerServer(model)) as client:
        await model.serve(100, 50)
        assert await pay(chain, client) == 0, "the proxy has not written it down yet"
        model.flush()
        first = await pay(chain, client)
        await model.serve(100, 50)
        model.flush()
        report = source_of(client)
        await report.sample()
    assert await on_chain(chain, workers) == first
    assert report.report is not None
    assert report.report.proxies[0].paid_out == first < report.report.proxies[0].in_database


@pytest.mark.parametrize("note", [{}, [], {"proxy_public_key": "00", "tokens": True}, {"proxy_public_key": 5}])
async def test_a_malformed_payment_is_refused(note: object) -> None:
    async with client_of(WorkerServer(WorkerModel(1, wallet_of(OWNER), [earnings(0)]))) as client:
        assert (await client.post(f"{URL}/devnet/paid", json=note)).status_code == 400
        assert (await client.post(f"{URL}/devnet/paid", content=b"[" * 100_000)).status_code == 400


async def test_a_payment_of_more_than_is_owed_is_refused() -> None:
    async with client_of(WorkerServer(WorkerModel(1, wallet_of(OWNER), [earnings(0)]))) as client:
        for key, reason in ((earnings(0).proxy_public_key, "tokens: expected 0 to 0"), (bytes(32), "not one of")):
            answer = await client.post(f"{URL}/devnet/paid", json={"proxy_public_key": key.hex(), "tokens": 1})
            assert (answer.status_code, reason in answer.text) == (409, True)


@contextmanager
def worker_process(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "agent.devnet.cocoon_worker", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
async def test_process_is_measured_and_paid_and_stops_on_sigterm(chain: EmulatedChain) -> None:
    workers = await deploy(chain, 1)
    books = earnings(0, workers[0])
    proxy = ",".join((books.proxy_public_key.hex(), str(books.proxy), str(books.worker)))
    options = ("--owner", str(wallet_of(OWNER)), "--proxy", proxy, "--schema", "1", "--rate", "50")
    with worker_process(*options) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        health = await read_health(partial(trio.open_tcp_stream, "127.0.0.1", ready["health_port"]))
        assert health.is_ok
        async with httpx.AsyncClient(trust_env=False) as client:
            source = CocoonSource(client, url=ready["url"], addresses=lambda: ())
            paid = 0
            with trio.fail_after(30):
                while paid == 0:
                    paid = await pay(chain, client, ready["url"])
            assert paid == await on_chain(chain, workers)
            counted = (await source.sample()).counters.series[ADJUSTED_TOKENS]
        assert source.report is not None
        assert source.report.proxies[0].paid_out == paid <= counted

        with worker_process(*options, "--port", str(ready["port"])) as second:
            _, stderr = second.communicate(timeout=20)
            assert second.returncode == 1
            assert stderr == f"cocoon worker: 127.0.0.1 port {ready['port']} is in use by another process\n"

        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=20)
        assert (process.returncode, stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "proxy", "message"),
    [("nowhere", f"{'00' * 32},0:{'00' * 32},0:{'00' * 32}", "--owner"), (f"0:{'00' * 32}", "key,a,b", "--proxy")],
)
def test_bad_options_are_one_line(owner: str, proxy: str, message: str) -> None:
    with worker_process("--owner", owner, "--proxy", proxy) as process:
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 1
    assert stderr.startswith(f"cocoon worker: {message}")
    assert stderr.count("\n") == 1
