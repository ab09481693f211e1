"""What a verb of `gpupool pool` acts with: a chain, a pool on it, and the keys that were named."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from agent.errors import ConfigError
from agent.files import is_there
from agent.identity import load_key
from contracts.chain import Chain
from contracts.errors import ContractAbsentError
from contracts.model import Address
from contracts.reader import PoolReader
from contracts.signing import SigningKey
from contracts.wallet import Wallet


class PoolSession:
    """One pool through one chain client. Keys are read when they are needed."""

    def __init__(
        self,
        chain: Chain,
        pool: Address,
        *,
        global_id: int,
        wallet: Wallet | None = None,
        node_key_file: Path | None = None,
    ) -> None:
        self.chain = chain
        self.pool = pool
        self.global_id = global_id
        self.reader = PoolReader(chain, pool)
        self._wallet = wallet
        self._node_key_file = node_key_file

    @property
    def wallet(self) -> Wallet:
        """Who sends. Raises `ConfigError` if no wallet was named."""
        if self._wallet is None:
            raise ConfigError("no wallet was named: give --wallet-key, or --config alone")
        return self._wallet

    @property
    def node_key_file(self) -> Path:
        """Where the operator's key is. Raises `ConfigError` if none was named."""
        if self._node_key_file is None:
            raise ConfigError("no node key was named: give --node-key, or --config alone")
        return self._node_key_file

    def node_key(self) -> SigningKey:
        """The operator's key.

        Raises:
            ConfigError: none was named.
            KeyFileError: it cannot be used.
        """
        return load_key(self.node_key_file)

    def node_key_if_there(self) -> SigningKey | None:
        """The same, or None if there is no such file. Raises `KeyFileError` if there is one that cannot be used."""
        if self._node_key_file is None or not is_there(self._node_key_file):
            return None
        return load_key(self._node_key_file)

    async def contracts(self) -> dict[Address, str]:
        """The pool's contracts by address, named as in messages to the user; the pool alone before it stands."""
        named = {self.pool: "pool"}
        with suppress(ContractAbsentError):
            state = await self.reader.state()
            named |= {state.registry: "registry", state.rewards: "rewards"}
        return named

    async def now_s(self) -> int:
        """The chain's time: of its latest block."""
        return (await self.chain.head()).time_s
