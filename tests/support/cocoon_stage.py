"""A stand-in Cocoon worker without a process or a socket, for tests of what reads one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import trio
from trio.testing import memory_stream_pair

from agent.devnet.cocoon_model import Earnings, Tariff, WorkerModel
from agent.devnet.cocoon_worker import WorkerServer, serve_health
from agent.meter.cocoon import CocoonSource
from agent.meter.cocoon_health import Connect
from contracts.model import Address
from contracts.signing import SigningKey

URL = "http://worker"


def address(name: str) -> Address:
    return Address(0, hashlib.sha256(name.encode()).digest())


def proxy_key(index: int = 0) -> SigningKey:
    return SigningKey(hashlib.sha256(b"proxy %d" % index).digest())


def earnings(index: int = 0, worker: Address | None = None) -> Earnings:
    """The books with proxy `index`."""
    contract = address(f"worker contract {index}") if worker is None else worker
    return Earnings(proxy=address(f"proxy {index}"), proxy_public_key=proxy_key(index).public, worker=contract)


def worker_model(proxies: int = 1, coefficient: int = 1000, **over: Any) -> WorkerModel:
    books = [earnings(index) for index in range(proxies)]
    return WorkerModel(1, address("owner"), books, Tariff(coefficient=coefficient), **over)


def client_of(server: WorkerServer) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=server.app()))


def source_of(client: httpx.AsyncClient, **over: Any) -> CocoonSource:
    """A source that tries no address of this host."""
    return CocoonSource(client, **{"url": URL, "addresses": lambda: (), **over})


def guest_of(nursery: trio.Nursery, serve: Callable[[trio.abc.Stream], Any]) -> Connect:
    """A way to a health service that `serve` plays in `nursery`."""

    async def connect() -> trio.abc.Stream:
        near, far = memory_stream_pair()
        nursery.start_soon(serve, far)
        return near

    return connect


def health_of(nursery: trio.Nursery, model: WorkerModel) -> Connect:
    return guest_of(nursery, partial(serve_health, model))


async def owed(client: httpx.AsyncClient, url: str = URL) -> dict[str, Any]:
    """What the stand-in tells a dev network's proxy."""
    answer: dict[str, Any] = json.loads((await client.get(f"{url}/devnet/owed")).content)
    return answer
