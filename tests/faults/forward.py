"""A port forwarded as QEMU forwards a guest's: `python -m tests.faults.forward ADDRESS PORT` leads to 127.0.0.1."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial

import trio


async def _forward(address: str, port: int) -> None:
    async def serve(client: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as server, trio.open_nursery() as nursery:
            nursery.start_soon(_pass_on, client, server)
            nursery.start_soon(_pass_on, server, client)

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, serve, port, host=address))
        sys.stdout.write(json.dumps({"ready": True}) + "\n")
        sys.stdout.flush()


async def _pass_on(source: trio.SocketStream, dest: trio.SocketStream) -> None:
    try:
        async for data in source:
            await dest.send_all(data)
        await dest.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # one side hung up


def main(arguments: Sequence[str]) -> int:
    trio.run(_forward, arguments[0], int(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
