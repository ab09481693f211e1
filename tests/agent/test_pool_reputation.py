"""`gpupool pool reputation-propose`: from a settlement that landed to certificates that change the registry."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
from contract_states import open_epoch
from emulated_chain import key, wallet_of
from pool_fixture import POLICY_TEXT, POOL, Author, policy
from pool_town import EPOCH_S, Town, open_town
from settled_history import leaf, settlement_of

from agent import certificates
from agent.config import load_config
from agent.errors import JournalError, OperationError
from agent.journal import create_journal, open_journal
from agent.pool.reputation import span_of
from agent.settlements import reading_settlements
from agent.setup import toml_table
from contracts import certificate, fees
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import CertificateDomain, Leaf, Signature
from contracts.wallet import OutMessage
from gossip.log_chain import Head
from gossip.records import CloseBody, PoolId, make_record
from gossip.reputation import EpochSpan
from gossip.settlement import Reading, Settlement

NAMES = ("ann", "bob", "cid", "dan")


def node(name: str) -> bytes:
    return key(f"node of {name}").public


@dataclass
class Council:
    """A pool that four operators run; ann's agent has a journal and all settings."""

    town: Town
    settled: list[Settlement] = field(default_factory=list)

    @property
    def pool(self) -> PoolId:
        return PoolId(DEVNET_GLOBAL_ID, self.town.pool.account)

    def settle(self, leaves: dict[str, Leaf], readings: dict[str, Reading], *, knows: bool = True) -> Settlement:
        """Have an epoch pass and settle like this on chain; ann's journal knows, unless not."""
        town = self.town
        town.chain.advance(EPOCH_S)
        town.run("dan", "finalize")
        made = settlement_of(
            [replace(each, participant=wallet_of(name)) for name, each in leaves.items()],
            {node(name): reading for name, reading in readings.items()},
            previous=self.settled[-1] if self.settled else None,
        )
        domain = CertificateDomain(global_id=DEVNET_GLOBAL_ID, pool=town.pool, set_id=1)
        cell = certificate.settle_certificate(domain, made.payload)
        operators = town.state().operator_set
        assert operators is not None
        keys = {node(name): key(f"node of {name}") for name in NAMES}
        signatures = [
            Signature(index=i, signature=keys[each.node_key].sign(cell.hash))
            for i, each in enumerate(operators.operators)
        ]
        body = certificate.submit_body(cell, signatures)
        message = OutMessage(dest=town.pool, value_nanoton=fees.submit_nanoton(4), body=body)
        trio.run(town.chain.wallet("dan").transfer, [message])
        assert town.rewards().landed.payload_hash == made.payload_hash
        self.settled.append(made)
        if knows:
            with closing(open_journal(self.journal, node_key=node("ann"), pool=self.pool)) as journal:
                journal.keep_landed(made)
        return made

    @property
    def journal(self) -> Path:
        return load_config(self.town.folder / "ann.toml").journal_file


@pytest.fixture
def council(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Council]:
    with open_town(tmp_path, monkeypatch, capsys) as town:
        (tmp_path / "policy.toml").write_text(POLICY_TEXT)
        town.deploy()
        town.register(*NAMES)
        town.hand_over()
        settings = tmp_path / "ann.toml"
        agent = toml_table("[engine]", {"url": "http://127.0.0.1:8000/metrics"})
        agent += toml_table("[attestation]", {"provider": "configfs"})
        text = settings.read_text().replace("[pool]", 'data_dir = "."\n[pool]\npolicy_file = "policy.toml"')
        settings.write_text(f"{text}\n{agent}")
        council = Council(town)
        create_journal(council.journal, node_key=node("ann"), pool=council.pool)
        yield council


THERE = Reading(witnessed_s=EPOCH_S)
FIGURES = {"tokens": 10, "uptime_s": 10, "score": 1}


def first_epoch(council: Council) -> Settlement:
    """Ann and bob worked, cid's log forked, dan did nothing."""
    return council.settle(
        {"ann": leaf(0, **FIGURES), "bob": leaf(1, **FIGURES), "cid": leaf(2), "dan": leaf(3)},
        {"ann": THERE, "bob": THERE, "cid": replace(THERE, dead=True), "dan": THERE},
    )


def put_head(council: Council, name: str, body: object) -> Head:
    """A record of this person's log in ann's journal."""
    record = make_record(key(f"node of {name}"), council.pool, 1, bytes(32), body)
    with closing(open_journal(council.journal, node_key=node("ann"), pool=council.pool)) as journal:
        journal.append([record])
    return Head(record.seq, record.hash)


def test_a_settled_epoch_becomes_certificates_that_land(council: Council) -> None:
    first_epoch(council)
    code, out, errors = council.town.try_("ann", "reputation-propose", "--epoch", "1")
    assert (code, "add --yes" in errors) == (2, True)
    assert out.splitlines()[0] == "epoch 1: 2 to propose"
    assert f"  {wallet_of('bob')}  500 -> 502  settled work" in out.splitlines()
    assert not list(council.town.folder.glob("reputation-*.json")), "shown, not written"

    value = council.town.run("ann", "reputation-propose", "--yes")
    files = {each["participant"]: each["file"] for each in value["proposed"]}
    assert set(files) == {str(wallet_of("ann")), str(wallet_of("bob"))}
    assert all(each["signed_by"] == [node("ann").hex()] for each in value["proposed"])
    file = files[str(wallet_of("bob"))]
    for name in ("bob", "cid"):
        council.town.run(name, "certificate", "sign", file, "--yes")
    council.town.run("dan", "certificate", "submit", file)
    reputations = {each.address: each.reputation for each in council.town.registry().participants}
    assert (reputations[wallet_of("bob")], reputations[wallet_of("ann")]) == (502, 500)

    again = council.town.run("ann", "reputation-propose", "--out-dir", ".", "--losses")
    assert (again["proposed"], again["outdated"], again["done"]) == ([], [], False)
    said = council.town.try_("ann", "reputation-propose")[1]
    assert f"  {wallet_of('bob')}  500 -> 502  settled work; it is 502 now" in said.splitlines()


def test_a_fork_is_charged_once_its_record_shows_it(council: Council) -> None:
    first_epoch(council)
    assert council.town.run("ann", "reputation-propose", "--losses")["proposed"] == [], "its record is not here"


@pytest.mark.parametrize("is_closed", [True, False])
def test_who_closed_its_log_forked_nothing(council: Council, is_closed: bool) -> None:
    author = Author(0)
    author.prove()
    head = put_head(council, "cid", CloseBody() if is_closed else author.records[0].body)
    council.settle({"cid": leaf(2)}, {"cid": Reading(head=head, witnessed_s=EPOCH_S, dead=True)})
    code, out, _ = council.town.try_("ann", "reputation-propose", "--losses", "--json")
    assert code == (0 if is_closed else 2)
    assert ("forked" in out) is not is_closed
    assert ('"proposed": 300' in out) is not is_closed


def test_the_journal_has_to_lead_to_what_landed(council: Council) -> None:
    first_epoch(council)
    rest = {"ann": leaf(0, **FIGURES)}
    council.settle(rest, {"ann": replace(THERE, witnessed_s=2 * EPOCH_S)}, knows=False)
    assert "the settlement of epoch 2 is not here: not caught up" in council.town.refused("ann", "reputation-propose")
    assert "epoch 3 has not settled; the last one that did is 2" in council.town.refused(
        "ann", "reputation-propose", "--epoch", "3"
    )
    with reading_settlements(load_config(council.town.folder / "ann.toml")) as kept:
        with pytest.raises(OperationError, match="epoch 2 is not here"):
            kept.chained(council.town.rewards().landed.payload_hash, 2, 1)
        assert kept.chained(council.settled[0].payload_hash, 1, 1).leaves == council.settled[0].leaves


def test_all_files_are_written_or_none(council: Council) -> None:
    first_epoch(council)
    bob = str(wallet_of("bob"))
    council.town.run("ann", "reputation", bob, "1", "--out", "rival.json")
    said = council.town.refused("ann", "reputation-propose", "--yes")
    assert bob in said
    assert "signed another command with this number" in said
    assert not list(council.town.folder.glob("reputation-*.json"))
    value = council.town.run("ann", "reputation-propose", "--yes", "--sign-another")
    assert len(value["proposed"]) == 2
    assert "exists already" in council.town.refused("ann", "reputation-propose", "--yes", "--sign-another")


def test_without_room_for_all_files_nothing_is_signed(council: Council, monkeypatch: pytest.MonkeyPatch) -> None:
    first_epoch(council)
    put = certificates._put
    asked: list[Path] = []

    def full(aside: Path, file: certificates.CertificateFile) -> None:
        asked.append(aside)
        if len(asked) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(aside, file)

    with monkeypatch.context() as patched:
        patched.setattr(certificates, "_put", full)
        assert "No space left on device" in council.town.refused("ann", "reputation-propose", "--yes")
    assert not [path for path in council.town.folder.iterdir() if "reputation" in path.name]
    # Nothing is noted either, so a rival can be signed.
    council.town.run("ann", "reputation", str(wallet_of("bob")), "1", "--out", "rival.json")


@pytest.mark.parametrize(
    ("arguments", "said"), [(("--valid-days", "0"), "--valid-days 0"), (("--valid-days", "999"), "expected 1 to 365")]
)
def test_a_certificate_counts_for_a_bounded_time(council: Council, arguments: tuple[str, ...], said: str) -> None:
    first_epoch(council)
    code, out, errors = council.town.try_("ann", "reputation-propose", *arguments)
    assert (code, out, said in errors) == (2, "", True)


def test_an_epoch_without_reason(council: Council) -> None:
    council.settle({"ann": leaf(0)}, {"ann": THERE})
    code, out, errors = council.town.try_("ann", "reputation-propose")
    assert (code, out, errors) == (0, "epoch 1 gives no reason to change a reputation\n", "")


def test_the_policy_of_the_epoch_has_to_be_here(council: Council) -> None:
    first_epoch(council)
    (council.town.folder / "policy.toml").write_text(POLICY_TEXT.replace("picks = 1", "picks = 2"))
    said = council.town.refused("ann", "reputation-propose")
    assert f"was counted by the policy {policy().hash.hex()}, which is not here" in said


def test_the_span_of_an_epoch_is_the_chains(council: Council) -> None:
    first_epoch(council)
    rewards = council.town.rewards()
    end_s = rewards.current_start_s
    assert span_of(rewards, 1) == EpochSpan(start_s=end_s - EPOCH_S, end_s=end_s)
    assert span_of(rewards, 2) is None
    second = open_epoch(2, start_s=end_s - 7, end_s=end_s, finalized_s=end_s)
    assert span_of(replace(rewards, open_epochs=(second,)), 1) == EpochSpan(
        start_s=end_s - 7 - EPOCH_S, end_s=end_s - 7
    )


def test_a_record_that_was_damaged_accuses_nobody(council: Council) -> None:
    head = put_head(council, "cid", CloseBody())
    config = load_config(council.town.folder / "ann.toml")
    with reading_settlements(config) as kept:
        assert kept.is_closed(node("cid"), head) is True
        assert kept.is_closed(node("dan"), head) is True, "not here"
    with closing(open_journal(council.journal, node_key=node("ann"), pool=council.pool)) as journal:
        journal._database.execute("UPDATE record SET wire = zeroblob(9)")
    with reading_settlements(config) as kept, pytest.raises(JournalError, match="does not match its checksum"):
        kept.is_closed(node("cid"), head)
    assert council.pool != POOL
