"""A town of people with wallets, node keys and configs, on an emulated chain, who type `gpupool pool ...`.

Only the socket is replaced (`open_chain`): wallets sign, messages land in blocks, proofs are made and checked.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from emulated_chain import EmulatedChain, key, open_storage, wallet_of
from pool_fixture import POLICY_TEXT

from agent.cli import main
from agent.pool import access, sending
from agent.setup import toml_table
from contracts import layout
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import NANO, Address, ParticipantStatus, PoolState, RegistryState, RewardsState

EPOCH_S = 3600
SERVER = "127.0.0.1:4924:hyHNnrPKZZSDpEw1IqKwbe28T1OFoFGjRDjJ8yTXPuE="
PEOPLE = ("owner", "ann", "bob", "cid", "dan")


def write_key(path: Path, name: str) -> None:
    private = Ed25519PrivateKey.from_private_bytes(key(name).seed)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private.private_bytes(*form))
    path.chmod(0o600)


class Town:
    """A chain, a pool's address, and people with their keys and configs in a folder each."""

    def __init__(self, folder: Path, chain: EmulatedChain, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.chain = chain
        self.pool = layout.pool_address(wallet_of("owner"), 1, EPOCH_S)
        self._capsys = capsys
        (folder / "policy.toml").write_text(POLICY_TEXT)
        for name in PEOPLE:
            write_key(folder / f"{name}.wallet", name)
            write_key(folder / f"{name}.node", f"node of {name}")
            host, port, public = SERVER.split(":")
            server = {"host": host, "port": int(port), "public_key": public}
            text = toml_table("[pool]", {"network": DEVNET_GLOBAL_ID, "address": str(self.pool)})
            text += toml_table("[wallet]", {"key_file": f"{name}.wallet"})
            text += toml_table("[identity]", {"node_key_file": f"{name}.node"})
            (folder / f"{name}.toml").write_text(text + toml_table("[[chain.liteservers]]", server))

    def try_(self, name: str, *arguments: str) -> tuple[int, str, str]:
        """Run `gpupool pool ...` as this person: exit code, output, errors."""
        self._capsys.readouterr()
        code = main(["pool", *arguments, "--config", f"{name}.toml"])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def run(self, name: str, *arguments: str) -> dict[str, Any]:
        """The same for what must succeed; its JSON."""
        code, out, errors = self.try_(name, *arguments, "--json")
        assert (code, errors) == (0, "")
        value: dict[str, Any] = json.loads(out)
        return value

    def refused(self, name: str, *arguments: str) -> str:
        """The same for what must fail with one line."""
        code, out, errors = self.try_(name, *arguments)
        assert (code, out, errors.count("\n")) == (1, "", 1)
        return errors

    def deploy(self, *more: str) -> dict[str, Any]:
        self._capsys.readouterr()
        arguments = ["pool", "deploy", "--network", str(DEVNET_GLOBAL_ID), "--liteserver", SERVER]
        arguments += ["--wallet-key", "owner.wallet", "--epoch-seconds", str(EPOCH_S), "--policy-file", "policy.toml"]
        assert main([*arguments, "--json", *more]) == 0
        value: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return value

    def register(self, *names: str) -> None:
        for name in names:
            self.run(name, "register", "--stake", "100")

    def hand_over(self) -> None:
        active = [each for each in self.registry().participants if each.status is ParticipantStatus.ACTIVE]
        self.run("owner", "hand-over", "--operators", str(len(active)), "--yes")

    def state(self) -> PoolState:
        return layout.read_pool(self._data(self.pool))

    def rewards(self) -> RewardsState:
        return layout.read_rewards(self._data(self.state().rewards))

    def registry(self) -> RegistryState:
        return layout.read_registry(self._data(self.state().registry))

    def balance(self, address: Address) -> int:
        return self.chain.node.ledger.account(address).balance_nanoton

    def _data(self, address: Address) -> Any:
        return self.chain.node.ledger.account(address).data


@contextmanager
def open_town(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Town]:
    """A town in `folder`, where its people type; there is no pool yet."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sending, "CONFIRM_INTERVAL_S", 0.0)
    with open_storage(folder / "chain") as storage:
        chain = EmulatedChain(storage, {wallet_of(name): 1000 * NANO for name in PEOPLE})

        @asynccontextmanager
        async def open_chain(*_: object, **__: object) -> AsyncIterator[EmulatedChain]:
            yield chain

        monkeypatch.setattr(access, "open_chain", open_chain)
        yield Town(folder, chain, capsys)
