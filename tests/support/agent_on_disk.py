"""A new agent's files on a development network, as `gpupool init` makes them, and a listener to stand in for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pool_fixture import POLICY_TEXT, START_S

from agent.config import Config
from agent.devnet.layout import free_ports
from agent.setup import Answers, init_agent
from attestation.providers.software import SoftwarePlatform, SoftwareRoot

KEY_BASE64 = "hyHNnrPKZZSDpEw1IqKwbe28T1OFoFGjRDjJ8yTXPuE="


def agent_on_disk(folder: Path, *, web_port: int | None = None) -> Config:
    """Everything that the settings name is there; nothing runs, and nobody listens at the ports that they name."""
    root = SoftwareRoot.create(folder / "root", now_s=START_S)
    SoftwarePlatform.create(folder / "platform", root=root)
    (folder / "policy.toml").write_text(POLICY_TEXT)
    web, p2p, server, engine = free_ports(4)
    answers = Answers(
        network=-217,
        pool="0:" + "ab" * 32,
        policy_file="policy.toml",
        liteservers=[("127.0.0.1", server, KEY_BASE64)],
        work={"engine": {"url": f"http://127.0.0.1:{engine}/metrics"}},
        attestation={"provider": "software", "software_dir": "platform", "software_root_file": "root/root.der"},
        listen=[f"/ip4/127.0.0.1/tcp/{p2p}"],
        web_port=web if web_port is None else web_port,
        more={"meter": {"window_s": 30}},  # half of the policy's longest window
    )
    return init_agent(folder, answers).config


@contextmanager
def answering(pages: Mapping[str, tuple[int, bytes]]) -> Iterator[int]:
    """A server on loopback with these pages (status code, body), 404 else; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = pages.get(self.path, (404, b"no such page"))
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
