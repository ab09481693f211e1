"""An inference engine to measure where there is none: vLLM's HTTP face over a seeded stand-in model.

Serves POST /v1/completions and /v1/chat/completions, GET /v1/models, /health and /metrics on loopback, under
its own load, and can misbehave as engines do: restart (counters from zero), refuse scrapes, abort, fail. It can lie,
too: count tokens several times, or such as nobody asked for; GET /devnet/served tells a gateway the truth.
Not for production: it computes nothing. Requests are untrusted: bounded, and refused in OpenAI's form.

    python -m agent.devnet.engine --port 8000 --seed 1 --rate 4
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import trio
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from agent.devnet.completions import MODEL, PROMPT_TOKENS_MAX, Completion, Model, Speed
from agent.devnet.load import generate_load
from agent.errors import AgentError
from agent.http_serve import serve_app
from agent.web import WebConfig, bind

BODY_BYTES_MAX = 1024 * 1024
GENERATION_TOKENS_MAX = 4096
_TOKENS_DEFAULT = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; print one JSON line when ready; exit code 1 with one line if it cannot."""
    options = _parser().parse_args(arguments)
    try:
        trio.run(_run, options)
    except AgentError as error:
        print(f"engine: {error}", file=sys.stderr)  # noqa: T201 -- a command's answer, not a log
        return 1
    return 0


class EngineServer:
    """The HTTP face of a model. While `refusing`, scrapes are answered with status 503."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.refusing = False

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/completions", self._completions, methods=["POST"]),
                Route("/v1/chat/completions", self._chat_completions, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
                Route("/devnet/served", self._served),
            ]
        )

    async def _completions(self, request: Request) -> Response:
        try:
            body = await _read_json(request)
            prompt = body.get("prompt")
            if not isinstance(prompt, str):
                raise _RefusedError("prompt: expected a string")
            done = await self._complete(prompt, body)
        except _RefusedError as error:
            return error.response()
        return _answer("text_completion", done, {"text": done.text})

    async def _chat_completions(self, request: Request) -> Response:
        try:
            body = await _read_json(request)
            done = await self._complete(_chat_text(body.get("messages")), body)
        except _RefusedError as error:
            return error.response()
        return _answer("chat.completion", done, {"message": {"role": "assistant", "content": done.text}})

    async def _complete(self, prompt: str, body: dict[str, Any]) -> Completion:
        if body.get("stream"):
            raise _RefusedError("stream: this stand-in answers whole")
        tokens_max = body.get("max_tokens", _TOKENS_DEFAULT)
        if type(tokens_max) is not int or not 1 <= tokens_max <= GENERATION_TOKENS_MAX:
            raise _RefusedError(f"max_tokens: expected 1 to {GENERATION_TOKENS_MAX}")
        prompt_tokens = len(prompt.split())
        if not 1 <= prompt_tokens <= PROMPT_TOKENS_MAX:
            raise _RefusedError(f"prompt: expected 1 to {PROMPT_TOKENS_MAX} words")
        done = await self.model.complete(prompt_tokens, tokens_max)
        if done.finish_reason == "error":
            raise _RefusedError("the engine failed", status=500)
        return done

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "devnet"}]})

    async def _health(self, _: Request) -> Response:
        return PlainTextResponse("")

    async def _metrics(self, _: Request) -> Response:
        if self.refusing:
            return PlainTextResponse("refused\n", status_code=503)
        return Response(generate_latest(self.model.vllm.registry), media_type=CONTENT_TYPE_LATEST)

    async def _served(self, request: Request) -> Response:
        """Tokens by second, of the seconds after `after_s` that are over."""
        after_s, now_s = request.query_params.get("after_s", "0"), int(time.time())
        if not after_s.isdecimal() or len(after_s) > 12:
            return _RefusedError("after_s: expected Unix seconds").response()
        over = [[time_s, tokens] for time_s, tokens in self.model.served.items() if int(after_s) < time_s < now_s]
        return JSONResponse({"served": sorted(over)})


async def _run(options: argparse.Namespace) -> None:
    model = Model(
        options.seed,
        Speed(),
        error_per_mille=options.error_per_mille,
        inflation=options.inflation,
        is_idle=options.idle,
    )
    server = EngineServer(model)
    listener = bind(WebConfig(port=options.port))
    port = listener.getsockname()[1]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_app, server.app(), listener)
            # The load has its own stream of numbers: requests from outside do not disturb it.
            if options.rate > 0:
                nursery.start_soon(generate_load, model, options.seed + 1, options.rate, options.abort_per_mille)
            if options.reset_every_s > 0:
                nursery.start_soon(_reset, model, options.reset_every_s)
            if options.refuse_for_s > 0:
                nursery.start_soon(_refuse, server, options.refuse_after_s, options.refuse_for_s)
            ready = {"ready": True, "host": "127.0.0.1", "port": port, "metrics": f"http://127.0.0.1:{port}/metrics"}
            print(json.dumps(ready), flush=True)  # noqa: T201 -- read by whoever started this process
            await anext(signals)
            nursery.cancel_scope.cancel()


async def _reset(model: Model, every_s: float) -> None:
    while True:
        await trio.sleep(every_s)
        model.restart()


async def _refuse(server: EngineServer, after_s: float, for_s: float) -> None:
    await trio.sleep(after_s)
    server.refusing = True
    await trio.sleep(for_s)
    server.refusing = False


class _RefusedError(Exception):
    """The request cannot be served: its sender is told why."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self._status = status

    def response(self) -> Response:
        error = {"message": str(self), "type": "invalid_request_error", "code": self._status}
        return JSONResponse({"error": error}, status_code=self._status)


async def _read_json(request: Request) -> dict[str, Any]:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise _RefusedError(f"the body is longer than {BODY_BYTES_MAX} bytes", status=413)
    except ClientDisconnect:
        raise _RefusedError("the client is gone") from None
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        raise _RefusedError("the body is not JSON") from None
    if not isinstance(tree, dict):
        raise _RefusedError("the body is not an object")
    return tree


def _chat_text(messages: object) -> str:
    if not isinstance(messages, list):
        raise _RefusedError("messages: expected a list")
    contents = [message.get("content") if isinstance(message, dict) else None for message in messages]
    texts = [content for content in contents if isinstance(content, str)]
    if len(texts) != len(contents):
        raise _RefusedError("messages: expected a text as content of each")
    return " ".join(texts)


def _answer(kind: str, done: Completion, choice: dict[str, Any]) -> Response:
    usage = {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.generation_tokens,
        "total_tokens": done.prompt_tokens + done.generation_tokens,
    }
    choices = [{"index": 0, "finish_reason": done.finish_reason, **choice}]
    return JSONResponse({"object": kind, "model": MODEL, "choices": choices, "usage": usage})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m agent.devnet.engine", description="A stand-in inference engine.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (0: a free one)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the load and of the completions")
    parser.add_argument("--rate", type=float, default=4.0, help="own requests per second (0: none)")
    parser.add_argument("--abort-per-mille", type=int, default=0, help="own requests whose client hangs up")
    parser.add_argument("--error-per-mille", type=int, default=0, help="requests that fail inside the engine")
    parser.add_argument("--inflation", type=int, default=1, help="count each token so many times")
    parser.add_argument("--idle", action="store_true", help="count tokens of the own load, but serve nobody")
    parser.add_argument("--reset-every-s", type=float, default=0.0, help="restart the counters so often")
    parser.add_argument("--refuse-after-s", type=float, default=0.0, help="when to begin to refuse scrapes")
    parser.add_argument("--refuse-for-s", type=float, default=0.0, help="for how long to refuse them")
    return parser


if __name__ == "__main__":
    sys.exit(main())
