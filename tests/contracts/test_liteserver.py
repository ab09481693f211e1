"""The liteserver: its wire format, what it answers, and that no client can end it."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey
from pytoniq import LiteClient
from pytoniq_core.crypto.ciphers import Client, Server

from contracts.chain import LiteServer, open_chain
from contracts.devchain import liteserver
from contracts.devchain.adnl import FRAME_BYTES_MAX, HANDSHAKE_BYTES, Channel, ServerKey
from contracts.devchain.errors import InvalidQueryError
from contracts.devchain.node import Node
from contracts.devchain.queries import answer
from contracts.devchain.storage import Storage
from contracts.devchain.tl import _BY_NAME, VECTOR_MAX, BlockId, decode, decode_prefix, encode
from contracts.model import NANO
from tests.contracts.chain_scene import (
    GENESIS,
    RECEIVER,
    START_S,
    TL,
    external,
    message,
    own_address,
    query,
    serving,
)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(Storage(tmp_path), GENESIS, now=START_S)


def test_every_constructor_has_the_number_that_pytoniq_knows() -> None:
    for name, constructor in _BY_NAME.items():
        assert TL.get_by_name(name).little_id() == constructor.number, name


@given(st.binary(max_size=200), st.sampled_from(sorted(_BY_NAME)))
def test_garbage_decodes_to_an_error_or_to_itself(data: bytes, name: str) -> None:
    data = _BY_NAME[name].number + data
    try:
        found, fields = decode(data)
    except InvalidQueryError:
        return
    assert found == name
    assert len(encode(found, **fields)) == len(data)


def test_a_long_vector_is_refused() -> None:
    block = BlockId(workchain=-1, seqno=1, root_hash=bytes(32), file_hash=bytes(32))
    data = encode("liteServer.getConfigParams", mode=0, id=block, param_list=[1] * (VECTOR_MAX + 1))
    with pytest.raises(InvalidQueryError, match="vector"):
        decode(data)


@pytest.mark.parametrize("size", [0, 1, 253, 254, 255, 256, 70_000])
def test_byte_strings_of_any_length(size: int) -> None:
    value = secrets.token_bytes(size)
    assert decode(encode("liteServer.query", data=value)) == ("liteServer.query", {"data": value})


class TestChannel:
    key = ServerKey(hashlib.sha256(b"server").digest())

    def connect(self) -> tuple[Channel, LiteClient]:
        client = object.__new__(LiteClient)
        client.server = Server("127.0.0.1", 1, self.key.public)
        client.client = Client(Client.generate_ed25519_private_key())
        return self.key.accept(client.handshake()), client

    def test_both_ways(self) -> None:
        channel, client = self.connect()
        for payload in (b"", b"question", secrets.token_bytes(1000)):
            sent = client.encrypt(client.serialize_packet(payload))
            assert channel.frame_bytes(sent[:4]) == len(sent) - 4
            assert channel.open(sent[4:]) == payload
            reply = client.decrypt(channel.seal(payload))
            assert reply[36:-32] == payload
            assert hashlib.sha256(reply[4:-32]).digest() == reply[-32:]

    @pytest.mark.parametrize("at", [0, 40, 70, 200])
    def test_a_changed_handshake_is_refused(self, at: int) -> None:
        _, client = self.connect()
        handshake = bytearray(client.handshake())
        handshake[at] ^= 1
        with pytest.raises(InvalidQueryError):
            self.key.accept(bytes(handshake))

    @pytest.mark.parametrize("public", [bytes(32), b"\xff" * 32, (1).to_bytes(32, "little")])
    def test_a_point_of_small_order_is_refused(self, public: bytes) -> None:
        with pytest.raises(InvalidQueryError):
            self.key.accept(self.key.id + public + bytes(192))

    def test_a_changed_frame_is_refused(self) -> None:
        channel, client = self.connect()
        sent = bytearray(client.encrypt(client.serialize_packet(b"question")))
        sent[-1] ^= 1
        channel.frame_bytes(bytes(sent[:4]))
        with pytest.raises(InvalidQueryError, match="checksum"):
            channel.open(bytes(sent[4:]))

    @pytest.mark.parametrize("size", [0, 63, FRAME_BYTES_MAX + 1, 2**32 - 1])
    def test_frames_are_bounded(self, size: int) -> None:
        channel, client = self.connect()
        with pytest.raises(InvalidQueryError, match="frame"):
            channel.frame_bytes(client.encrypt(size.to_bytes(4, "little")))


class TestAnswers:
    def test_unknown_names_blocks_and_transactions_are_errors(self, node: Node) -> None:
        unknown = BlockId(workchain=-1, seqno=999, root_hash=bytes(32), file_hash=bytes(32))
        account = {"workchain": 0, "id": RECEIVER.account}
        assert query(node, "noSuchQuery")["code"] == 621
        assert query(node, "getBlockHeader", id=unknown, mode=0)["code"] == 651
        assert query(node, "getTransactions", count=1, account=account, lt=5, hash=bytes(32))["code"] == 651
        masterchain = {"workchain": -1, "id": bytes(32)}
        head = node.head.masterchain_id
        assert query(node, "getAccountState", id=head, account=masterchain)["code"] == 621
        assert query(node, "getAllShardsInfo", id=node.head.shard_id)["code"] == 621

    @pytest.mark.parametrize("mode", [0, 3, 5, 7])
    def test_a_lookup_names_one_thing(self, node: Node, mode: int) -> None:
        wanted = {"workchain": -1, "shard": -(2**63), "seqno": 1}
        assert query(node, "lookupBlock", mode=mode, id=wanted, lt=1, utime=START_S)["code"] == 621

    def test_a_refused_message_says_so_in_tons_words(self, node: Node) -> None:
        node.send(external(0, [message()]), START_S)
        refused = query(node, "sendMessage", body=external(0, [message()]))
        assert "cannot apply external message to current state" in str(refused["message"])
        assert "133" in str(refused["message"])

    def test_transactions_of_a_block_and_of_an_account(self, node: Node) -> None:
        for number in range(3):
            node.send(external(number, [message()]), START_S + number)
            node.seal(START_S + number)
        step = node.head
        listed = query(node, "listBlockTransactions", id=step.shard_id, mode=7, count=10)
        assert len(listed["ids"]) == 2
        assert listed["incomplete"] is False
        last = node.ledger.account(own_address())
        account = {"workchain": 0, "id": own_address().account}
        found = query(node, "getTransactions", count=99, account=account, lt=last.last_lt, hash=last.last_hash)
        assert len(found["ids"]) == 3

    @pytest.mark.parametrize("name", sorted(n for n in _BY_NAME if n.startswith("liteServer.")))
    def test_no_query_raises(self, node: Node, name: str) -> None:
        random = Random(name)
        heads = (b"", encode("tonNode.blockIdExt", **asdict(node.head.masterchain_id))[4:])
        for _ in range(50):
            body = random.choice(heads) + random.randbytes(random.randrange(120))
            try:
                fields = decode_prefix(_BY_NAME[name].number + body)[1]
            except InvalidQueryError:
                continue
            assert decode_prefix(answer(node, name, fields, START_S))[0]


@asynccontextmanager
async def raw_connection(server: LiteServer) -> AsyncIterator[trio.SocketStream]:
    stream = await trio.open_tcp_stream(server.host, server.port)
    async with stream:
        yield stream


async def ends(stream: trio.SocketStream) -> bool:
    """Whether the server closes the connection (whatever it still sends before)."""
    try:
        while await stream.receive_some(4096):
            pass
    except trio.BrokenResourceError:
        return True
    return True


def client_of(server: LiteServer) -> LiteClient:
    return LiteClient(server.host, server.port, base64.b64encode(server.public_key).decode())


async def still_serves(server: LiteServer) -> None:
    async with open_chain([server]) as chain:
        assert (await chain.account(own_address())).balance_nanoton == 1000 * NANO


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(HANDSHAKE_BYTES), b"\xff" * 5000])
async def test_garbage_on_the_socket(tmp_path: Path, first: bytes) -> None:
    async with serving(tmp_path) as server:
        async with raw_connection(server) as stream:
            await stream.send_all(first)
            await stream.send_eof()
            assert await ends(stream)
        await still_serves(server)


async def test_garbage_after_the_handshake(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for packet in (b"", b"\0" * 7, encode("tcp.pong", random_id=1), encode("liteServer.getTime")):
            client = client_of(server)
            async with raw_connection(server) as stream:
                await stream.send_all(client.handshake())
                await stream.send_all(client.encrypt(client.serialize_packet(packet)))
                assert await ends(stream)
        await still_serves(server)


async def test_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liteserver, "CONNECTIONS_MAX", 1)
    async with serving(tmp_path) as server:
        async with raw_connection(server) as first:
            client = client_of(server)
            await first.send_all(client.handshake())
            await first.receive_some(1)
            async with raw_connection(server) as second:
                assert await ends(second)
        await still_serves(server)


def test_keys_differ_between_chains(tmp_path: Path) -> None:
    seeds = set()
    for name in ("a", "b"):
        with Storage(tmp_path / name) as storage:
            seeds.add(Node(storage, GENESIS, now=START_S).liteserver_seed)
    assert len(seeds) == 2
    assert all(len(bytes(SigningKey(seed).verify_key)) == 32 for seed in seeds)
