"""The gateway of a dev network: signs receipts for what the engines served, and hands them in to the agents.

Decides what is signed: one receipt for each second in which requests ended, of the tokens that the engine delivered in
truth. An agent that is not up, or stopped, gets its receipts later; those that it does not take are dropped.

With a forger, its agent is handed two more for each: one of the forger's own signature, for nine times the tokens, and
the gateway's under the name of another job.

Source: `agent.receipts`, whose listener takes them; PROTOCOL, "Records" (kind 3).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx
import trio

from agent.devnet.cheats import INFLATION
from agent.devnet.layout import LOOPBACK, Seat
from contracts.signing import SigningKey
from gossip.receipts import make_receipt
from gossip.records import RECEIPTS_MAX, PoolId, Receipt

INTERVAL_S = 1
_TAKEN = (200, 422)
"""How an agent answers to a request that it looked at; 422 says that it refused some of it."""


class Gateway:
    """What was handed in so far. `key` signs; `say` is told what happens to forgeries."""

    def __init__(self, key: SigningKey, say: Callable[[str], None]) -> None:
        self.key = key
        self.signed: dict[str, int] = {}
        """Tokens of the receipts that were taken, by the agent's name."""
        self.forged, self.forged_taken = 0, 0
        """How many forgeries were handed in, and how many of them were taken."""
        self._say = say
        self._forger_key = SigningKey(secrets.token_bytes(32))

    async def run(
        self, http: httpx.AsyncClient, pool: PoolId, engines: Sequence[tuple[Seat, str]], forger: Seat | None
    ) -> None:
        """Sign and hand in for ever, for the engine (metrics URL) behind each of these seats."""
        async with trio.open_nursery() as nursery:
            for seat, metrics in engines:
                url = metrics.removesuffix("/metrics")
                nursery.start_soon(self._vouch, http, pool, seat, url, seat is forger)

    async def _vouch(self, http: httpx.AsyncClient, pool: PoolId, seat: Seat, engine: str, is_forged: bool) -> None:
        after_s = 0
        waiting: list[Receipt] = []
        while True:
            await trio.sleep(INTERVAL_S)
            try:
                answer = await http.get(f"{engine}/devnet/served", params={"after_s": str(after_s)})
                for time_s, tokens in answer.raise_for_status().json()["served"]:
                    waiting.append(self._receipt(pool, seat, time_s, tokens))
                    after_s = time_s
                handed = waiting[:RECEIPTS_MAX]
                if handed:
                    refused = await self._hand_in(http, seat, handed)
                    taken = sum(each.tokens for i, each in enumerate(handed) if str(i) not in refused)
                    self.signed[seat.name] = self.signed.get(seat.name, 0) + taken
                    waiting = waiting[len(handed) :]
                    if is_forged:
                        await self._forge(http, pool, seat, handed)
            except httpx.HTTPError:
                continue  # not up yet, or stopped: what waits is handed in later

    def _receipt(self, pool: PoolId, seat: Seat, time_s: int, tokens: int) -> Receipt:
        job_id = f"{seat.name} {time_s}".encode()
        return make_receipt(self.key, pool, seat.node_key.public, job_id=job_id, time_s=time_s, tokens=tokens)

    async def _forge(self, http: httpx.AsyncClient, pool: PoolId, seat: Seat, genuine: Sequence[Receipt]) -> None:
        forged = []
        for receipt in genuine[: RECEIPTS_MAX // 2]:
            forged.append(replace(receipt, job_id=receipt.job_id + b" again"))
            fields: dict[str, Any] = {
                "job_id": receipt.job_id,
                "time_s": receipt.time_s,
                "tokens": receipt.tokens * (INFLATION - 1),
            }
            forged.append(make_receipt(self._forger_key, pool, seat.node_key.public, **fields))
        refused = await self._hand_in(http, seat, forged)
        if self.forged == 0:
            for reason in sorted(set(refused.values())):
                self._say(f"{seat.name} refused a forged receipt: {reason}")
        self.forged += len(forged)
        self.forged_taken += len(forged) - len(refused)

    async def _hand_in(self, http: httpx.AsyncClient, seat: Seat, receipts: Sequence[Receipt]) -> dict[str, str]:
        """Hand receipts in; which of them, by place, were refused, and why.

        Raises:
            httpx.HTTPError: nobody answers, or the request as a whole is refused now.
        """
        body = {"receipts": [_claim(receipt) for receipt in receipts]}
        answer = await http.post(f"http://{LOOPBACK}:{seat.receipts_port}/receipts", json=body)
        if answer.status_code not in _TAKEN:
            answer.raise_for_status()
        refused: dict[str, str] = answer.json()["refused"]
        return refused


def _claim(receipt: Receipt) -> dict[str, Any]:
    """A receipt as JSON."""
    return {
        "signer": receipt.signer.hex(),
        "job_id": receipt.job_id.hex(),
        "time_s": receipt.time_s,
        "tokens": receipt.tokens,
        "signature": receipt.signature.hex(),
    }
