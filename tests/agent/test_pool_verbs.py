"""`gpupool pool` from the command line to the contracts: typed arguments in, TON's own emulator underneath."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated_chain import key, wallet_of
from pool_town import EPOCH_S, Town, open_town

from contracts import layout
from contracts.model import DAY_S, NANO


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Town]:
    with open_town(tmp_path, monkeypatch, capsys) as town:
        yield town


@pytest.fixture
def pool(town: Town) -> Town:
    """The same with a pool that its owner runs."""
    town.deploy()
    return town


# The owner.


def test_a_pool_is_deployed_with_its_parameters_and_name(town: Town) -> None:
    (town.folder / "params.toml").write_text('min_stake = "50"\nmax_refund = "0.05"\nslash_bps = 500\nfee_bps = 300\n')
    (town.folder / "about.toml").write_text('name = "A pool"\ncontact = "ops@example.org"\n')
    made = town.deploy("--params-file", "params.toml", "--metadata-file", "about.toml", "--fee-bps", "400")
    assert made["pool"] == str(town.pool)
    state = town.state()
    assert state.params.terms.fee_bps == 400, "an option counts more than the file"
    assert state.params.rules.min_stake_nanoton == 50 * NANO
    assert state.params.terms.max_refund_nanoton == NANO // 20
    assert state.params.rules.slash_bps == 500
    assert state.metadata.name == "A pool"
    shown = town.run("ann", "status")
    assert shown["metadata"]["contact"] == "ops@example.org"
    assert shown["params"]["rules"]["min_stake_nanoton"] == 50 * NANO


def test_a_dry_run_of_a_deployment_names_the_contracts_to_be_and_sends_nothing(town: Town) -> None:
    forecast = town.deploy("--dry-run")
    assert {each["account"] for each in forecast["balances"]} == {"wallet", "pool", "registry", "rewards"}
    assert forecast["refusal"] is None
    assert town.chain.sent == []


def test_the_owner_commands_until_the_hand_over(pool: Town) -> None:
    assert pool.run("owner", "pause")["done"] is True
    assert "the pool is paused" in pool.refused("ann", "register")
    pool.run("owner", "resume")
    pool.register("ann")
    pool.run("owner", "registration", "shut")
    assert "registration is closed" in pool.refused("bob", "register")
    (pool.folder / "about.toml").write_text('name = "Renamed"')
    pool.run("owner", "metadata", "about.toml")
    assert pool.state().metadata.name == "Renamed"
    assert pool.state().gov_seqno == 4
    assert "not this wallet" in pool.refused("ann", "pause")
    assert "gives it its first operator set" in pool.refused("owner", "set", "propose", "none.toml")
    pool.hand_over()
    code, out, _ = pool.try_("owner", "pause", "--json")
    assert code == 0
    assert json.loads(out)["signed_by"] == [], "the owner is no operator: it only wrote the file"
    assert pool.state().gov_seqno == 4


def test_a_hand_over_shows_first_who_would_be_operator(pool: Town) -> None:
    assert "nobody is registered" in pool.refused("owner", "hand-over")
    pool.register("ann", "bob")
    code, out, errors = pool.try_("owner", "hand-over")
    assert code == 2
    assert "would be run by 2 operators, total weight 2:" in out
    assert errors == "gpupool: nothing was done; a hand-over cannot be undone: add --operators 2 --yes to do it\n"
    assert pool.state().operator_set is None
    assert "not this wallet" in pool.refused("ann", "hand-over")
    line = f'[[operators]]\nnode_key = "{key("node of ann").public.hex()}"\nweight = 3\n'
    (pool.folder / "set.toml").write_text(line)
    pool.run("owner", "hand-over", "--set", "set.toml", "--yes")
    assert [o.weight for o in pool.state().operator_set.operators] == [3]  # type: ignore[union-attr]


def test_a_hand_over_is_to_those_who_were_shown(pool: Town) -> None:
    pool.register("ann", "bob")
    for consent, said in (
        (["--yes"], "add --operators 2 if these are the ones"),
        (["--operators", "1", "--yes"], "these are 2 operators, not 1: look again who they are"),
        (["--operators", "2"], "cannot be undone: add --operators 2 --yes to do it"),
    ):
        code, out, errors = pool.try_("owner", "hand-over", *consent)
        assert (code, out.count("\n")) == (2, 3)
        assert errors == f"gpupool: nothing was done; {errors.split('; ', 1)[1]}"
        assert said in errors
    line = f'[[operators]]\nnode_key = "{key("node of ann").public.hex()}"\n'
    (pool.folder / "set.toml").write_text(line)
    code, _, errors = pool.try_("owner", "hand-over", "--set", "set.toml", "--operators", "2", "--yes")
    assert (code, "these are 1 operators, not 2" in errors) == (2, True)
    assert pool.state().operator_set is None
    pool.run("owner", "hand-over", "--operators", "2", "--yes")
    assert len(pool.state().operator_set.operators) == 2  # type: ignore[union-attr]


def test_who_is_not_active_becomes_operator_only_by_name(pool: Town) -> None:
    pool.register("ann", "bob")
    pool.run("owner", "suspend", str(wallet_of("bob")))
    _, out, _ = pool.try_("owner", "hand-over")
    assert "would be run by 1 operators, total weight 1:" in out
    assert f"{key('node of ann').public.hex()}  weight 1  active  {wallet_of('ann')}\n" in out
    line = f'[[operators]]\nnode_key = "{key("node of bob").public.hex()}"\n'
    (pool.folder / "set.toml").write_text(line)
    _, out, _ = pool.try_("owner", "hand-over", "--set", "set.toml")
    assert f"weight 1  suspended  {wallet_of('bob')}\n" in out
    pool.run("owner", "suspend", str(wallet_of("ann")))
    assert "nobody is registered and active" in pool.refused("owner", "hand-over")


def test_closing_needs_consent(pool: Town) -> None:
    code, out, errors = pool.try_("owner", "close")
    assert code == 2
    assert out.startswith("command   close\n  gov_seqno 1\n  * for ever: ")
    assert "add --yes" in errors
    pool.run("owner", "close", "--yes")
    assert "closed for ever" in pool.refused("owner", "pause")
    assert pool.run("ann", "status")["status"] == "closed"


def test_parameters_wait(pool: Town) -> None:
    assert "changes nothing" in _with_file(pool, "params.toml", "fee_bps = 200", "params", "propose", "params.toml")
    (pool.folder / "params.toml").write_text('fee_bps = 900\nguardian = ""\n')
    pool.run("owner", "params", "propose", "params.toml")
    shown = pool.run("ann", "status")["proposals"][0]
    assert shown["changes"] == ["fee_bps 200 -> 900"]
    assert "it waits until 2027-01-18" in pool.refused("ann", "params", "apply")
    pool.chain.advance(3 * DAY_S)
    pool.run("ann", "params", "apply")
    assert pool.state().params.terms.fee_bps == 900
    assert "no params is proposed" in pool.refused("ann", "params", "apply")


def _with_file(town: Town, name: str, text: str, *arguments: str) -> str:
    (town.folder / name).write_text(text)
    return town.refused("owner", *arguments)


def test_what_params_show_prints_can_be_proposed(pool: Town) -> None:
    _, out, _ = pool.try_("ann", "params", "show")
    assert "changes nothing" in _with_file(pool, "params.toml", out, "params", "propose", "params.toml")


def test_a_proposal_is_cancelled(pool: Town) -> None:
    assert "no params is proposed" in pool.refused("owner", "cancel", "params")
    (pool.folder / "params.toml").write_text("slash_bps = 1\n")
    pool.run("owner", "params", "propose", "params.toml")
    pool.run("owner", "cancel", "params")
    assert pool.state().pending == ()


def test_code_is_proposed_and_applied(pool: Town) -> None:
    (pool.folder / "code.boc").write_bytes(layout.code("participant_registry").to_boc())
    (pool.folder / "other.boc").write_bytes(layout.code("reward_distribution").to_boc())
    pool.run("owner", "upgrade", "propose", "registry", "code.boc")
    assert "it waits until" in pool.refused("ann", "upgrade", "apply", "code.boc")
    pool.chain.advance(8 * DAY_S)
    assert "not the code that was proposed" in pool.refused("ann", "upgrade", "apply", "other.boc")
    assert pool.run("ann", "upgrade", "apply", "code.boc")["target"] == "registry"
    assert pool.state().pending == ()


def test_a_guardian_pauses_once(town: Town) -> None:
    guardian = wallet_of("ann")
    (town.folder / "params.toml").write_text(f'emergency = true\nguardian = "{guardian}"\n')
    town.deploy("--params-file", "params.toml")
    assert "is not the guardian" in town.refused("bob", "guardian-pause")
    until_s = town.run("ann", "guardian-pause")["paused_until_s"]
    assert until_s == town.state().paused_until_s
    assert "the guardian paused already" in town.refused("ann", "guardian-pause")
    assert town.run("bob", "status")["is_paused"] is True


# Participants.


def test_a_participant_comes_and_goes(pool: Town) -> None:
    assert "the least stake is 100 TON" in pool.refused("ann", "register", "--stake", "99.999999999")
    assert "is not registered" in pool.refused("ann", "heartbeat")
    pool.register("ann")
    assert "registered already" in pool.refused("ann", "register")
    pool.run("ann", "stake", "add", "50")
    assert "would stay, less than" in pool.refused("ann", "withdraw", "request", "100")
    assert "that is the most" in pool.refused("ann", "withdraw", "request", "151")
    assert "it can be paid in 7 d" in pool.run("ann", "withdraw", "request", "50")["done"]
    assert "are locked until" in pool.refused("bob", "withdraw", "complete", "--participant", str(wallet_of("ann")))
    pool.run("ann", "withdraw", "cancel")
    assert "no withdrawal was asked for" in pool.refused("ann", "withdraw", "cancel")
    pool.run("ann", "withdraw", "request", "all")
    assert pool.run("bob", "status")["participants"][0]["pending_nanoton"] == 150 * NANO
    pool.chain.advance(7 * DAY_S)
    before = pool.balance(wallet_of("ann"))
    pool.run("bob", "withdraw", "complete", "--participant", str(wallet_of("ann")))
    assert pool.balance(wallet_of("ann")) - before > 149 * NANO
    assert pool.registry().participants == ()


def test_a_participant_keeps_its_entry_up_to_date(pool: Town) -> None:
    pool.register("ann")
    pool.run("ann", "worker", str(wallet_of("bob")))
    pool.run("ann", "heartbeat")
    (entry,) = pool.registry().participants
    assert entry.worker == wallet_of("bob")
    assert entry.heartbeat_s > 0
    pool.run("ann", "worker", "none")
    assert pool.registry().participants[0].worker is None


def test_anybody_pays_in_and_ends_an_epoch(pool: Town) -> None:
    paid = pool.run("bob", "pay", "25")
    assert paid == {"amount_nanoton": 25 * NANO, "credited_nanoton": pool.rewards().received_nanoton}
    _, said, _ = pool.try_("bob", "pay", "1")
    assert said == "paid 0.9984 TON into the running epoch; 0.0016 TON were for its gas\n"
    assert "epoch 1 ends 2027-01-15" in pool.refused("bob", "finalize")
    pool.chain.advance(EPOCH_S)
    assert pool.run("bob", "finalize") == {"finalized_epoch": 1}
    (open_epoch,) = pool.run("bob", "status")["open_epochs"]
    assert 25 * NANO < open_epoch["pot_nanoton"] < 26 * NANO


def test_the_owner_disciplines(pool: Town) -> None:
    pool.register("ann")
    ann = str(wallet_of("ann"))
    pool.run("owner", "suspend", ann)
    pool.run("owner", "reinstate", ann)
    pool.run("owner", "reputation", ann, "700")
    pool.run("owner", "slash", ann, "--reason", "fork", "--amount", "30", "--evidence", "ab" * 32)
    (entry,) = pool.registry().participants
    assert (entry.held_nanoton, entry.reputation, entry.seqno) == (30 * NANO, 600, 4)
    pool.run("owner", "slash-cancel", ann)
    assert "no slashed stake" in pool.refused("owner", "slash-cancel", ann)
    pool.run("owner", "slash", ann, "--reason", "offline")
    assert pool.registry().participants[0].held_nanoton == 10 * NANO
    assert "are open to appeal until" in pool.refused("bob", "sweep", ann)
    pool.chain.advance(7 * DAY_S)
    assert "the time for it ended" in pool.refused("owner", "slash-cancel", ann)
    assert pool.run("bob", "sweep", ann)["amount_nanoton"] == 10 * NANO
    pool.run("owner", "remove", ann)
    assert pool.registry().participants[0].pending_nanoton == 90 * NANO


# Refusals.


def test_keys_that_nobody_proved_to_hold_take_over_nothing(pool: Town) -> None:
    pool.register("ann")
    (pool.folder / "set.toml").write_text(f'[[operators]]\nnode_key = "{"ab" * 32}"\n')
    assert "is not registered: nobody proved to hold it" in pool.refused("owner", "hand-over", "--set", "set.toml")
    assert pool.state().operator_set is None


def test_what_changes_nothing_is_refused(pool: Town) -> None:
    pool.register("ann")
    ann = str(wallet_of("ann"))
    assert "the pool is not paused" in pool.refused("owner", "resume")
    assert "the registration is open already" in pool.refused("owner", "registration", "open")
    assert "is not suspended" in pool.refused("owner", "reinstate", ann)
    assert "changes nothing" in _with_file(pool, "about.toml", "", "metadata", "about.toml")
    pool.run("owner", "suspend", ann)
    assert "is suspended already" in pool.refused("owner", "suspend", ann)
    pool.run("owner", "pause")
    assert "the pool is paused already" in pool.refused("owner", "pause")
    assert pool.state().gov_seqno == 1


def test_a_forecast_refusal_says_who_refuses_and_why(pool: Town) -> None:
    (pool.folder / "body.boc").write_bytes(layout.top_up_body().to_boc())
    command = ("owner-message", str(pool.state().registry), "0.1", "--body", "body.boc")
    sent = len(pool.chain.sent)
    code, out, _ = pool.try_("owner", *command, "--dry-run")
    assert code == 1
    assert "it would be refused by the rewards: wrong_destination (161): the pool's own contracts" in out
    assert len(pool.chain.sent) == sent


def test_a_landed_refusal_is_told_by_name(pool: Town) -> None:
    (pool.folder / "body.boc").write_bytes(layout.top_up_body().to_boc())
    command = ("owner-message", str(pool.state().registry), "0.1", "--body", "body.boc", "--yes")
    said = pool.refused("owner", *command)
    assert said.startswith("gpupool: the rewards refused: wrong_destination (161): the pool's own contracts")


def test_an_empty_wallet_is_told(pool: Town) -> None:
    assert "holds" in pool.refused("ann", "pay", "5000")
    assert "5000 TON and gas" in pool.refused("ann", "pay", "5000")


# What people read.


@pytest.mark.parametrize("contract", ["pool", "registry", "rewards"])
def test_storage_is_paid_for(pool: Town, contract: str) -> None:
    before = pool.run("cid", "status")["storage_nanoton"]
    pool.run("owner", "top-up", contract, "3")
    after = pool.run("cid", "status")["storage_nanoton"]
    gained = {name: round((after[name] - before[name]) / NANO) for name in after}
    assert gained == {name: 3 if name == contract else 0 for name in after}


def test_a_status_for_people_says_all_that_matters(pool: Town) -> None:
    pool.register("ann", "bob")
    pool.run("owner", "slash", str(wallet_of("bob")), "--reason", "fork")
    pool.run("ann", "withdraw", "request", "all")
    (pool.folder / "params.toml").write_text('min_stake = "50"\nwithdrawal_delay_s = 86400\n')
    pool.run("owner", "params", "propose", "params.toml")
    pool.run("owner", "pause")
    _, said, _ = pool.try_("cid", "status")
    for part in (
        f"run by    its owner {wallet_of('owner')}",
        f"pool      {pool.pool}",
        "status    paused until a `gpupool pool resume`, registration open",
        "settled   none so far",
        "storage   pool 0.",
        "by `gpupool pool params apply`",
        "epoch     1 until 2027-01-15",
        "stakes    190 TON, of it 100 TON asked back; 10 TON slashed and held",
        "proposed  params ",
        "  withdrawal_delay_s 604800 (7 d) -> 86400 (1 d)",
        "  min_stake_nanoton 100000000000 (100 TON) -> 50000000000 (50 TON)",
        "withdrawing  stake 100 TON  paid 0 TON  reputation 500  withdraws 100 TON from 2027-01-22",
        "inactive  stake 90 TON  paid 0 TON  reputation 400  slashed 10 TON, appeal until 2027-01-22",
    ):
        assert part in said


def test_a_dry_run_for_people_is_a_story(pool: Town) -> None:
    code, said, _ = pool.try_("ann", "register", "--dry-run")
    assert code == 0
    assert said.startswith("dry run at block ")
    for part in (
        "  wallet: transfer: ok; gas ",
        "  pool: pool_register_participant: ok; gas ",
        "  registry: registry_add_participant: ok; gas ",
        "stake_nanoton 100000000000 (100 TON)",
        "  registry: +100.05 TON",
        "\nit would succeed\n",
    ):
        assert part in said
    assert pool.registry().participants == ()
