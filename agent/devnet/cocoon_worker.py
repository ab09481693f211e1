"""A Cocoon worker to measure where there is none: its statistics in both schemas, and its guest's health service.

Serves /jsonstats and /stats as a worker does, the health protocol on a TCP port (a guest's is on vsock), and on
/devnet what a dev network's proxy has to know: GET /devnet/owed tells how many tokens it owes, POST /devnet/paid that
the chain took a payment, POST /devnet/uplinks/down cuts it off its proxies. On loopback, under its own load; with
--waits that begins by POST /devnet/begin. The paths that change a worker's state by a GET do as they do there, and are
counted: nobody but a test may ask for them. It can lie: count tokens several times, or such as no proxy knows of. Not
for production: it computes nothing.

    python -m agent.devnet.cocoon_worker --owner ADDRESS --proxy KEY,PROXY_ADDRESS,WORKER_ADDRESS --schema 1
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from agent.devnet.cocoon_model import Earnings, Tariff, WorkerModel
from agent.devnet.cocoon_texts import COMMIT, health_answer, jsonstats, stats_page
from agent.devnet.load import CONCURRENCY_MAX, demands
from agent.errors import AgentError, ConfigError, OperationError
from agent.http_serve import serve_app
from agent.meter.cocoon_stats import DOUBLING_COMMITS
from agent.web import WebConfig, bind
from contracts.devchain.cocoon_worker import stand_in_code
from contracts.errors import InvalidValueError
from contracts.model import Address

FLUSH_S = 1
REQUEST_BYTES_MAX = 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; print one JSON line when ready; exit code 1 with one line if it cannot."""
    options = _parser().parse_args(arguments)
    try:
        trio.run(_run, options)
    except AgentError as error:
        print(f"cocoon worker: {error}", file=sys.stderr)  # noqa: T201 -- a command's answer, not a log
        return 1
    return 0


class WorkerServer:
    """The HTTP face of a worker: `schema` is 1 or 2, `commit` is told in schema 2. With `access_hash`, for it alone."""

    def __init__(self, model: WorkerModel, *, schema: int = 2, commit: str = COMMIT, access_hash: str = "") -> None:
        self.model = model
        self.begun = trio.Event()
        """Whether its proxy said that queries may come."""
        self.state_changes = 0
        """How often a path was asked for that changes the worker's state."""
        self._schema = schema
        self._commit = commit
        self._access_hash = access_hash
        self._doubles_failures = schema == 1 or any(commit.startswith(known) for known in DOUBLING_COMMITS)

    def app(self) -> Starlette:
        """The ASGI application."""
        changing = ("payout", "enable", "disable", "change_coefficient")
        return Starlette(
            routes=[
                Route("/jsonstats", self._jsonstats),
                Route("/stats", self._stats),
                *(Route(f"/request/{name}", self._change) for name in changing),
                Route("/devnet/owed", self._owed),
                Route("/devnet/paid", self._paid, methods=["POST"]),
                Route("/devnet/begin", self._begin, methods=["POST"]),
                Route("/devnet/uplinks/{state}", self._uplinks, methods=["POST"]),
            ]
        )

    async def _jsonstats(self, request: Request) -> Response:
        if not self._may(request):
            return PlainTextResponse("", status_code=403)
        text = jsonstats(
            self.model,
            schema=self._schema,
            commit=self._commit,
            doubles_failures=self._doubles_failures,
            worker_code_hash=stand_in_code().hash,
        )
        return Response(text, media_type="application/json")

    async def _stats(self, request: Request) -> Response:
        return HTMLResponse(stats_page(self.model)) if self._may(request) else PlainTextResponse("", status_code=403)

    async def _change(self, request: Request) -> Response:
        self.state_changes += 1
        if request.url.path.endswith("able"):
            self.model.is_enabled = request.url.path.endswith("enable")
        return HTMLResponse("state updated")

    async def _owed(self, _: Request) -> Response:
        proxies = [
            {
                "proxy_public_key": proxy.proxy_public_key.hex(),
                "worker": str(proxy.worker),
                "owed_tokens": proxy.in_database,
                "paid_tokens": proxy.paid_out,
            }
            for proxy in self.model.proxies
        ]
        return JSONResponse({"proxies": proxies, "state_changes": self.state_changes})

    async def _paid(self, request: Request) -> Response:
        try:
            body = await request.json()
            key, tokens = bytes.fromhex(body["proxy_public_key"]), body["tokens"]
            if type(tokens) is not int:
                raise ValueError("tokens")
            self.model.pay(key, tokens)
        except (ValueError, TypeError, KeyError, RecursionError):
            return PlainTextResponse("expected proxy_public_key (64 hex digits) and tokens\n", status_code=400)
        except OperationError as error:
            return PlainTextResponse(f"{error}\n", status_code=409)
        return PlainTextResponse("noted\n")

    async def _begin(self, _: Request) -> Response:
        self.begun.set()
        return PlainTextResponse("begun\n")

    async def _uplinks(self, request: Request) -> Response:
        """Cut the connections to all proxies ("down"), or have them back ("up")."""
        for proxy in self.model.proxies:
            proxy.is_connected = request.path_params["state"] == "up"
        return PlainTextResponse("noted\n")

    def _may(self, request: Request) -> bool:
        return not self._access_hash or request.query_params.get("access_hash") == self._access_hash


async def serve_health(model: WorkerModel, stream: trio.abc.Stream) -> None:
    """Answer one client of the health service until it hangs up."""
    async with stream:
        try:
            while True:
                length = int.from_bytes(await _receive(stream, 4), "little")
                if length > REQUEST_BYTES_MAX:
                    return
                request = (await _receive(stream, length)).decode("ascii", "replace")
                answer = health_answer(model, request).encode()
                await stream.send_all(len(answer).to_bytes(4, "little") + answer)
        except (trio.BrokenResourceError, EOFError):
            return


async def generate_work(model: WorkerModel, seed: int, rate: float) -> None:
    """Ask the worker until cancelled, as `agent.devnet.load` asks an engine; `rate` > 0 a second on average."""
    slots = trio.Semaphore(CONCURRENCY_MAX)

    async def ask(prompt_tokens: int, tokens_max: int) -> None:
        async with slots:
            await model.serve(prompt_tokens, tokens_max)

    async with trio.open_nursery() as nursery:
        for demand in demands(seed, rate, 0):
            await trio.sleep(demand.pause_s)
            nursery.start_soon(ask, demand.prompt_tokens, demand.tokens_max)


async def _run(options: argparse.Namespace) -> None:
    model = WorkerModel(
        options.seed,
        _parse_address(options.owner),
        [_parse_proxy(text) for text in options.proxy],
        Tariff(coefficient=options.coefficient),
        error_per_mille=options.error_per_mille,
        inflation=options.inflation,
        is_idle=options.idle,
    )
    server = WorkerServer(model, schema=options.schema, commit=options.commit)
    if not options.waits:
        server.begun.set()
    listener = bind(WebConfig(port=options.port))
    port = listener.getsockname()[1]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_app, server.app(), listener)
            health = await nursery.start(
                partial(trio.serve_tcp, partial(serve_health, model), options.health_port, host="127.0.0.1")
            )
            nursery.start_soon(_every, FLUSH_S, model.flush)
            # The load has its own stream of numbers, as the engine's has.
            if options.rate > 0:
                nursery.start_soon(_work, server, options.seed + 1, options.rate)
            if options.reset_every_s > 0:
                nursery.start_soon(_every, options.reset_every_s, model.restart)
            health_port = health[0].socket.getsockname()[1]
            ready = {"ready": True, "port": port, "url": f"http://127.0.0.1:{port}", "health_port": health_port}
            print(json.dumps(ready), flush=True)  # noqa: T201 -- read by whoever started this process
            await anext(signals)
            nursery.cancel_scope.cancel()


async def _work(server: WorkerServer, seed: int, rate: float) -> None:
    await server.begun.wait()
    await generate_work(server.model, seed, rate)


async def _every(seconds: float, act: Callable[[], None]) -> None:
    while True:
        await trio.sleep(seconds)
        act()


async def _receive(stream: trio.abc.Stream, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        chunk = await stream.receive_some(length - len(received))
        if not chunk:
            raise EOFError
        received += chunk
    return bytes(received)


def _parse_proxy(text: str) -> Earnings:
    key, *addresses = text.split(",")
    try:
        proxy, worker = (Address.parse(address) for address in addresses)
        public_key = bytes.fromhex(key)
    except (InvalidValueError, ValueError):
        public_key = b""
    if len(public_key) != 32:
        raise ConfigError(f"--proxy: expected KEY,PROXY_ADDRESS,WORKER_ADDRESS, got {text!r:.200}")
    return Earnings(proxy=proxy, proxy_public_key=public_key, worker=worker)


def _parse_address(text: str) -> Address:
    try:
        return Address.parse(text)
    except InvalidValueError as error:
        raise ConfigError(f"--owner: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m agent.devnet.cocoon_worker", description="A stand-in worker.")
    parser.add_argument("--port", type=int, default=0, help="port of the statistics on 127.0.0.1 (0: a free one)")
    parser.add_argument("--health-port", type=int, default=0, help="port of the health service there (0: a free one)")
    parser.add_argument("--owner", required=True, metavar="ADDRESS", help="whose worker it is")
    parser.add_argument(
        "--proxy",
        required=True,
        action="append",
        metavar="KEY,PROXY,WORKER",
        help="public key (64 hex digits) and contract of a proxy, and the worker's contract with it; may be repeated",
    )
    parser.add_argument("--schema", type=int, choices=(1, 2), default=2, help="of /jsonstats")
    parser.add_argument("--commit", default=COMMIT, help="what it was built from, told in schema 2")
    parser.add_argument("--coefficient", type=int, default=1000, help="per mille by which its tokens are multiplied")
    parser.add_argument("--seed", type=int, default=1, help="seed of the load and of the answers")
    parser.add_argument("--rate", type=float, default=4.0, help="own requests per second (0: none)")
    parser.add_argument("--error-per-mille", type=int, default=0, help="requests that fail")
    parser.add_argument("--waits", action="store_true", help="begin the own load by POST /devnet/begin")
    parser.add_argument("--inflation", type=int, default=1, help="count each token so many times")
    parser.add_argument("--idle", action="store_true", help="count tokens of the own load that no proxy knows of")
    parser.add_argument("--reset-every-s", type=float, default=0.0, help="restart the counters so often")
    return parser


if __name__ == "__main__":
    sys.exit(main())
