"""The Cocoon proxy of a dev network: a worker for each seat, a contract for each worker, and tokens paid on chain.

Decides when queries come and when they are paid for. One key is the proxy: it signs payouts, and its wallet sends them.

1. Queries come once every agent has proven itself, so that no work is done that nobody counts.
2. Nothing is paid before the operators have read the contracts for the first epoch: counting begins there, at zero.
3. Then all that is owed is paid every few seconds, but nothing shortly before the last epoch ends: so what was paid by
   then is credited in it, to the last token. `faults` says where it was not.

Source: `agent.devnet.cocoon_worker` (what is owed), `contracts.devchain.cocoon_worker` (how it is paid); METERING.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio

from agent.devnet.cocoon_model import PARTS, Tariff
from agent.devnet.layout import GLOBAL_ID, WINDOW_S, Seat, Tables, slower
from agent.devnet.load import GENERATION_TOKENS_MEAN, PROMPT_TOKENS_MEAN
from agent.devnet.onlooker import HTTP_TIMEOUT_S, POLL_S, Onlooker
from agent.devnet.options import DevnetOptions
from agent.devnet.works import Spawn, is_clone, level_demands, load_arguments
from agent.errors import OperationError
from agent.identity import create_key
from contracts import layout
from contracts.chain import Chain
from contracts.cocoon import read_worker
from contracts.devchain.cocoon_worker import PAYOUT_NANOTON, payout_body, stand_in_code, stand_in_init
from contracts.errors import ContractsError
from contracts.model import NANO, Address
from contracts.wallet import OutMessage, Wallet, wallet_address

PAY_INTERVAL_S = 2
CONFIRM_LOOKS = 20
DEPLOY_NANOTON = NANO // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A seat's worker: where it answers, and its contract with the proxy."""

    url: str
    contract: Address


class CocoonWorks:
    """One worker per agent; the schemas of their statistics take turns."""

    def __init__(self, options: DevnetOptions, directory: Path, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._key = create_key(directory / "proxy.key")
        self.funded = (self._key,)
        self.vouched: dict[str, int] = {}
        self.vouched_by = "paid on chain"
        self._is_ceiling = options.policy_level not in ("open", "capped")
        self.demands: Tables = {
            "work": {
                "source": "cocoon",
                "token_units": [3],
                **level_demands(options, _adjusted(PROMPT_TOKENS_MEAN, GENERATION_TOKENS_MEAN)),
            },
            "receipts": {
                "ceiling": "worker-contract" if self._is_ceiling else "none",
                "worker_codes": [stand_in_code().hash.hex()],
                "worker_proxies": [self._key.public.hex()],
            },
        }
        self._posts: dict[str, Post] = {}
        """By the agent's name; a clone's is that of another."""

    async def begin(self, chain: Chain, seats: Sequence[Seat], spawn: Spawn) -> dict[str, Tables]:
        contracts = await self._deploy(chain, seats)
        for seat in seats:
            if is_clone(self._options, seat):
                self._posts[seat.name] = self._posts[seats[seat.index - 1].name]
                continue
            contract = contracts[seat.name]
            ready = await spawn(
                f"worker-{seat.index}",
                [
                    *("-m", "agent.devnet.cocoon_worker", "--waits"),
                    *("--owner", str(_owner(seat)), "--schema", str(1 + seat.index % 2)),
                    *("--proxy", f"{self._key.public.hex()},{self._wallet(chain).address},{contract}"),
                    *load_arguments(self._options, seat),
                ],
                seat.directory / "worker.log",
                seat,
            )
            self._posts[seat.name] = Post(url=ready["url"], contract=contract)
        return {
            seat.name: {"cocoon": {"workers": [0], "urls": [self._posts[seat.name].url], "health": False}}
            for seat in seats
        }

    def worker_of(self, seat: Seat) -> Address | None:
        return self._posts[seat.name].contract

    async def run(self, chain: Chain, pool: Address, onlooker: Onlooker, last_epoch: Callable[[], int]) -> None:
        wallet = self._wallet(chain)
        async with httpx.AsyncClient(trust_env=False, timeout=HTTP_TIMEOUT_S) as http:
            await self._let_queries_come(http, onlooker)
            while True:
                await trio.sleep(PAY_INTERVAL_S)
                rewards, count = onlooker.rewards, len(self._posts)
                if rewards is None or not is_read(onlooker.statuses, onlooker.settled_epoch, count):
                    continue
                left_s = rewards.current_end_s - time.time()
                if not is_paid_in(rewards.current_epoch, left_s, last_epoch=last_epoch(), agents=count):
                    continue
                try:
                    await self._pay(http, wallet, chain)
                except (ContractsError, httpx.HTTPError):
                    continue  # the supervisor tells of a chain that is away; what is owed is paid later

    async def conclude(self, chain: Chain) -> None:
        for name, post in self._posts.items():
            self.vouched[name] = (await read_worker(chain, post.contract)).tokens

    def faults(self, credited: Mapping[str, int]) -> list[str]:
        """Where tokens credited are not tokens paid."""
        if not self._is_ceiling:
            return []
        faults = []
        for name, tokens in credited.items():
            paid = self.vouched.get(name, 0)
            if paid == 0:
                faults.append(f"{name} was paid nothing on chain: the epochs are too short for that here")
            elif tokens != paid:
                faults.append(f"{name} was credited {tokens} tokens, and paid {paid} on chain")
        return faults

    async def _deploy(self, chain: Chain, seats: Sequence[Seat]) -> dict[str, Address]:
        wallet = self._wallet(chain)
        inits = {
            seat.name: stand_in_init(owner=_owner(seat), proxy=wallet.address, proxy_public_key=self._key.public)
            for seat in seats
        }
        contracts = {name: layout.address_of(init) for name, init in inits.items()}
        await wallet.transfer(
            [
                OutMessage(dest=contracts[name], value_nanoton=DEPLOY_NANOTON, body=None, bounce=False, state_init=init)
                for name, init in inits.items()
            ]
        )
        return contracts

    async def _let_queries_come(self, http: httpx.AsyncClient, onlooker: Onlooker) -> None:
        """Wait until all have proven themselves, and the windows that began before are long enough to be closed."""
        while not all(_has_proven(onlooker.statuses.get(name)) for name in self._posts):  # noqa: ASYNC110 -- others' state
            await trio.sleep(POLL_S)
        await trio.sleep(WINDOW_S * slower(len(self._posts)) + 2)
        for name, post in self._posts.items():
            try:
                (await http.post(f"{post.url}/devnet/begin")).raise_for_status()
            except httpx.HTTPError as error:
                raise OperationError(f"the Cocoon worker of {name} takes no queries: {error}") from error
        self._say("every agent has proven itself; the proxy lets queries come")

    async def _pay(self, http: httpx.AsyncClient, wallet: Wallet, chain: Chain) -> None:
        """Pay what is owed in one transfer, look whether it came, and tell the workers."""
        due: dict[Post, int] = {}
        for post in dict.fromkeys(self._posts.values()):
            answer = (await http.get(f"{post.url}/devnet/owed")).raise_for_status()
            (owed,) = answer.json()["proxies"]
            if owed["owed_tokens"] > owed["paid_tokens"]:
                due[post] = owed["owed_tokens"]
        if not due:
            return
        await wallet.transfer([self._payout(post, tokens, wallet.address) for post, tokens in due.items()])
        for post, tokens in due.items():
            await _confirm(chain, post.contract, tokens)
            note = {"proxy_public_key": self._key.public.hex(), "tokens": tokens}
            (await http.post(f"{post.url}/devnet/paid", json=note)).raise_for_status()
            self.vouched |= {name: tokens for name, each in self._posts.items() if each == post}

    def _payout(self, post: Post, tokens: int, excesses_to: Address) -> OutMessage:
        fields: dict[str, Any] = {"worker": post.contract, "tokens": tokens, "excesses_to": excesses_to}
        # Every payout names all that was ever earned: a number of its own tells nobody more.
        body = payout_body(self._key, query_id=tokens, **fields)
        return OutMessage(dest=post.contract, value_nanoton=PAYOUT_NANOTON, body=body)

    def _wallet(self, chain: Chain) -> Wallet:
        return Wallet(chain, self._key.seed, "v5r1", global_id=GLOBAL_ID)


def is_read(statuses: Mapping[str, Mapping[str, Any]], settled_epoch: int, operators: int) -> bool:
    """Whether the operators have read the contracts for the first epoch: each of them said so, or it has settled."""
    closes = [status["close"] for status in statuses.values() if status["close"]]
    said = max((close["observations"] for close in closes if close["epoch"] == 1), default=0)
    return settled_epoch > 0 or said >= operators


def is_paid_in(epoch: int, left_s: float, *, last_epoch: int, agents: int) -> bool:
    """Whether a payment that is made `left_s` before the end of `epoch` is credited by the end of the last one.

    The windows that hold what it is for must be in the agents' logs by then, and the payment on chain.
    """
    quiet_s = 4 + WINDOW_S * slower(agents)
    return epoch < last_epoch or (epoch == last_epoch and left_s > quiet_s)


def _owner(seat: Seat) -> Address:
    return wallet_address(seat.wallet_key.public, "v5r1", global_id=GLOBAL_ID)


def _adjusted(prompt_tokens: float, tokens: float) -> float:
    """Adjusted tokens of such a request, about: what the stand-in counts, without rounding."""
    million = 1_000_000
    tariff = Tariff()
    each = {part: tariff.adjusted(part, million) / million for part in PARTS}
    prompt = prompt_tokens * (0.75 * each["prompt"] + 0.25 * each["cached"])
    return prompt + tokens * each["completion"]


def _has_proven(status: Mapping[str, Any] | None) -> bool:
    return status is not None and bool((status["evidence"] or {}).get("valid"))


async def _confirm(chain: Chain, contract: Address, tokens: int) -> None:
    """Wait until the contract shows a payment: it follows the wallet's transaction by a block or two.

    Raises:
        ContractsError: it does not, or cannot be read.
    """
    for _ in range(CONFIRM_LOOKS):
        if (await read_worker(chain, contract)).tokens >= tokens:
            return
        await trio.sleep(POLL_S)
    raise ContractsError(f"{contract}: a payout of {tokens} tokens did not arrive")
