"""Runs the embedded TON chain as a process: `python -m contracts.devchain --dir DIR --port P`.

Prints one JSON line when it serves ({"host", "port", "public_key", "global_id"}, the key in base64),
and leaves the same in DIR/liteserver.json. SIGTERM and SIGINT stop it; starting it again with the
same DIR continues the chain. Exit code 1, with one line that says why, when it cannot start.

Untrusted input: the genesis file, a JSON list of {"address": ..., "nanoton": ...}.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from contracts.devchain.liteserver import LiteServer
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.devchain.node import Node
from contracts.devchain.storage import Storage
from contracts.errors import ContractsError, InvalidValueError
from contracts.model import Address, require_uint

READY_FILE = "liteserver.json"
_GENESIS_BYTES_MAX = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        genesis = {} if options.genesis is None else read_genesis(options.genesis)
        trio.run(_run, options, genesis)
    except (ContractsError, OSError) as error:
        failure: BaseException = error
    except ExceptionGroup as group:
        expected, unexpected = group.split((ContractsError, OSError))
        if expected is None or unexpected is not None:
            raise
        failure = _first(expected)
    else:
        return 0
    print(f"chain: {failure}", file=sys.stderr)  # noqa: T201 -- the command's own output
    return 1


def read_genesis(path: Path) -> dict[Address, int]:
    """Read the accounts that a new chain begins with: address -> nanoton.

    Raises:
        InvalidValueError: the file is not such a list. OSError: it cannot be read.
    """
    raw = path.read_bytes()
    if len(raw) > _GENESIS_BYTES_MAX:
        raise InvalidValueError(f"{path}: more than {_GENESIS_BYTES_MAX} bytes")
    try:
        entries: Any = json.loads(raw)
        accounts = {Address.parse(entry["address"]): entry["nanoton"] for entry in entries}
        for nanoton in accounts.values():
            require_uint("nanoton", nanoton, 120)
    except (ValueError, TypeError, KeyError, AttributeError, InvalidValueError) as error:
        shape = '[{"address": "0:...", "nanoton": 1000000000}, ...]'
        raise InvalidValueError(f"{path}: expected {shape}: {error}") from error
    return accounts


async def _run(options: argparse.Namespace, genesis: dict[Address, int]) -> None:
    with Storage(options.dir) as storage:
        try:
            listeners = await trio.open_tcp_listeners(options.port, host=options.host)
        except OSError as error:
            raise OSError(f"cannot listen on {options.host}:{options.port}: {error.strerror}") from error
        node = Node(storage, genesis, now=int(time.time()))
        node.ledger.warm_up()
        server = LiteServer(node, block_s=options.block_seconds)
        host, port = listeners[0].socket.getsockname()[:2]
        ready = json.dumps(
            {
                "host": host,
                "port": port,
                "public_key": base64.b64encode(server.public_key).decode(),
                "global_id": DEVNET_GLOBAL_ID,
            }
        )
        _write(options.dir / READY_FILE, ready + "\n")
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve, listeners)
                print(ready, flush=True)  # noqa: T201 -- who started this waits for the line
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    break


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m contracts.devchain", description="The embedded TON chain.")
    parser.add_argument("--dir", type=Path, required=True, help="where the chain is kept")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (0: any free one)")
    parser.add_argument("--block-seconds", type=_positive, default=1.0, help="seconds between blocks")
    parser.add_argument("--genesis", type=Path, help="JSON list of the accounts that a new chain begins with")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 3600:
        raise argparse.ArgumentTypeError("expected 0.01 to 3600 seconds")
    return value


if __name__ == "__main__":
    sys.exit(main())
