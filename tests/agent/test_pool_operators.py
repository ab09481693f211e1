"""`gpupool pool` for operators: from a command to a certificate file, its signatures, and what it does on chain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated_chain import key, wallet_of
from pool_town import EPOCH_S, Town, open_town

from agent import certificates
from agent.certificates import CertificateFile
from agent.cli import main
from contracts import layout
from contracts.commands import Pause
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import DAY_S, NANO, CertificateDomain


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Town]:
    with open_town(tmp_path, monkeypatch, capsys) as town:
        yield town


@pytest.fixture
def handed(town: Town) -> Town:
    """The same with a pool that four operators run."""
    town.deploy()
    town.register("ann", "bob", "cid", "dan")
    town.hand_over()
    return town


def test_a_certificate_goes_through_the_operators(handed: Town) -> None:
    draft = handed.run("ann", "pause")
    assert draft["file"] == "pause-1.json"
    assert (draft["weight"], draft["total_weight"], draft["is_quorum"]) == (1, 4, False)
    assert "exists already" in handed.refused("ann", "pause")
    assert "weight 1 of 4 are no quorum" in handed.refused("dan", "certificate", "submit", "pause-1.json")
    code, out, errors = handed.try_("bob", "certificate", "sign", "pause-1.json")
    assert code == 2
    assert "command   pause" in out
    assert "add --yes to sign it" in errors
    (handed.folder / "second.json").write_bytes((handed.folder / "pause-1.json").read_bytes())
    handed.run("bob", "certificate", "sign", "pause-1.json", "--yes")
    assert "(" not in handed.refused("owner", "certificate", "sign", "pause-1.json", "--yes").split("is not in")[1]
    handed.run("cid", "certificate", "sign", "second.json", "--yes")
    assert main(["pool", "certificate", "merge", "pause-1.json", "second.json", "--out", "all.json"]) == 0
    sent = len(handed.chain.sent)
    forecast = handed.run("dan", "certificate", "submit", "all.json", "--dry-run")
    assert [t["op"] for t in forecast["transactions"]][:3] == [
        "transfer",
        "pool_submit_certificate",
        "registry_configure",
    ]
    assert (forecast["refusal"], len(handed.chain.sent)) == (None, sent)
    handed.run("dan", "certificate", "submit", "all.json")
    assert handed.run("ann", "status")["is_paused"] is True
    assert "it is command 1 of the pool; the next one is 2" in handed.refused(
        "dan", "certificate", "submit", "all.json"
    )
    assert handed.run("ann", "certificate", "show", "all.json")["obstacle"].startswith("it is command 1")


def test_a_certificate_expires(handed: Town) -> None:
    handed.run("ann", "registration", "shut", "--valid-days", "1", "--out", "shut.json")
    handed.chain.advance(DAY_S + 10)
    assert "it expired 2027-01-16" in handed.refused("bob", "certificate", "sign", "shut.json", "--yes")


def test_one_certificate_about_a_participant_outdates_another(handed: Town) -> None:
    dan = str(wallet_of("dan"))
    handed.run("ann", "slash", dan, "--reason", "offline", "--out", "slash.json")
    handed.run("ann", "reputation", dan, "1", "--out", "reputation.json", "--sign-another")
    _sign_and_submit(handed, "slash.json", "bob", "cid")
    assert handed.registry().slashed_nanoton == 10 * NANO
    said = handed.refused("bob", "certificate", "sign", "reputation.json", "--yes")
    assert "another command about this participant landed meanwhile" in said


def _sign_and_submit(town: Town, file: str, *signers: str, more: tuple[str, ...] = ()) -> None:
    for name in signers:
        town.run(name, "certificate", "sign", file, "--yes")
    town.run(signers[-1], "certificate", "submit", file, *more)


def test_operators_give_way_to_others(handed: Town) -> None:
    names = ("bob", "cid", "dan")
    lines = [f'[[operators]]\nnode_key = "{key(f"node of {name}").public.hex()}"\nweight = 2\n' for name in names]
    (handed.folder / "next.toml").write_text("\n".join(lines))
    draft = handed.run("ann", "set", "propose", "next.toml", "--out", "propose.json")
    assert draft["operator_set"]["set_id"] == 2
    _sign_and_submit(handed, "propose.json", "bob", "cid")
    assert "it waits until" in handed.refused("bob", "set", "accept", "next.toml")
    handed.chain.advance(3 * DAY_S)
    handed.run("bob", "set", "accept", "next.toml", "--out", "accept.json")
    assert "is not in operator set 2" in handed.refused("ann", "certificate", "sign", "accept.json", "--yes")
    for name in ("cid", "dan"):
        handed.run(name, "certificate", "sign", "accept.json", "--yes")
    code, _, errors = handed.try_("ann", "certificate", "submit", "accept.json")
    assert (code, "add --yes" in errors) == (2, True)
    handed.run("ann", "certificate", "submit", "accept.json", "--yes")
    assert handed.state().operator_set.set_id == 2  # type: ignore[union-attr]
    assert handed.run("ann", "set", "show")["previous"]["set_id"] == 1
    assert "it is of operator set 1" in handed.refused("bob", "certificate", "sign", "propose.json", "--yes")


def test_another_set_than_the_proposed_one_is_not_accepted(handed: Town) -> None:
    _, out, _ = handed.try_("ann", "set", "show")
    (handed.folder / "next.toml").write_text(out)
    handed.run("ann", "set", "propose", "next.toml", "--out", "propose.json")
    _sign_and_submit(handed, "propose.json", "bob", "cid")
    handed.chain.advance(3 * DAY_S)
    (handed.folder / "next.toml").write_text(out.replace("weight = 1", "weight = 2"))
    assert "not the set that was proposed" in handed.refused("bob", "set", "accept", "next.toml")


def test_an_operator_signs_one_command_of_a_number(handed: Town) -> None:
    handed.run("ann", "pause")
    said = handed.refused("ann", "registration", "shut")
    assert "this node key signed another command with this number, pause " in said
    handed.run("bob", "registration", "shut", "--out", "shut.json")
    assert "signed another command" in handed.refused("ann", "certificate", "sign", "shut.json"), "told before --yes"
    assert "signed another command" in handed.refused("ann", "certificate", "sign", "shut.json", "--yes")
    handed.run("ann", "pause", "--out", "longer.json", "--valid-days", "30")
    handed.run("ann", "certificate", "sign", "shut.json", "--yes", "--sign-another")
    assert handed.run("ann", "certificate", "show", "shut.json")["weight"] == 2


def test_what_could_land_for_ever_is_not_signed(handed: Town) -> None:
    handed.run("owner", "pause", "--out", "pause.json")
    text = json.loads((handed.folder / "pause.json").read_text())
    (handed.folder / "pause.json").write_text(json.dumps({**text, "valid_until_s": 2**32 - 1}))
    assert "for over 365 days" in handed.refused("ann", "certificate", "sign", "pause.json", "--yes")


def test_what_a_pause_blocks_is_not_submitted_meanwhile(handed: Town) -> None:
    handed.run("ann", "pause", "--out", "pause.json")
    handed.run("ann", "slash", str(wallet_of("dan")), "--reason", "fork", "--out", "slash.json")
    for name in ("bob", "cid"):
        handed.run(name, "certificate", "sign", "slash.json", "--yes")
    _sign_and_submit(handed, "pause.json", "bob", "cid")
    assert "takes this once it is resumed" in handed.refused("bob", "certificate", "submit", "slash.json")


def test_a_slash_says_what_it_takes(handed: Town) -> None:
    dan = str(wallet_of("dan"))
    _, said, _ = handed.try_("ann", "slash", dan, "--reason", "fork", "--out", "share.json")
    assert "  * takes 10 TON (10 %, the parameters' share) of the 100 TON that are staked now" in said
    _, said, _ = handed.try_("bob", "slash", dan, "--reason", "fork", "--amount", "9999999999", "--out", "all.json")
    assert "  * takes 100 TON of the 100 TON that are staked now" in said


def test_a_new_set_is_told_by_what_it_changes(handed: Town) -> None:
    _, out, _ = handed.try_("ann", "set", "show")
    first, *others = out.split("[[operators]]")[1:]
    stranger = '\nnode_key = "' + "ab" * 32 + '"\nweight = 5\n'
    changed = others[0].replace("weight = 1", "weight = 2")
    (handed.folder / "next.toml").write_text("[[operators]]".join(["", stranger, changed, *others[1:]]))
    _, said, _ = handed.try_("ann", "set", "propose", "next.toml")
    assert f"  * adds operator {'ab' * 32}, weight 5; not registered here: nobody proved to hold this key\n" in said
    assert said.count("  * changes the weight of operator ") == 1
    assert f"  * drops operator {first.split(chr(34))[1]}\n" in said
    assert said.count("  * ") == 4


def test_a_set_that_cannot_be_seen_is_not_signed(handed: Town) -> None:
    _, out, _ = handed.try_("ann", "set", "show")
    (handed.folder / "next.toml").write_text(out.replace("weight = 1", "weight = 2"))
    handed.run("ann", "set", "propose", "next.toml", "--out", "full.json")
    shown = json.loads((handed.folder / "full.json").read_text())
    (handed.folder / "bare.json").write_text(json.dumps({**shown, "operator_set": None}))
    assert "it does not show the proposed set" in handed.refused("bob", "certificate", "sign", "bare.json", "--yes")
    _, said, _ = handed.try_("bob", "certificate", "show", "bare.json")
    assert "  * the set itself is not in this file" in said
    handed.run("bob", "certificate", "sign", "full.json", "--yes")


def test_a_long_body_hides_nothing(handed: Town) -> None:
    (handed.folder / "body.boc").write_bytes(layout.top_up_body().to_boc())
    _, said, _ = handed.try_("ann", "owner-message", str(wallet_of("bob")), "1", "--body", "body.boc", "--yes")
    assert f"  * the body's hash is {layout.top_up_body().hash.hex()}" in said
    assert max(map(len, said.splitlines())) < 400


def test_a_file_cannot_be_a_folder(handed: Town) -> None:
    assert "name a file" in handed.refused("ann", "pause", "--out", ".")


def test_a_dry_run_of_a_command_writes_no_file(handed: Town) -> None:
    assert handed.run("ann", "pause", "--dry-run")["written"] is False
    assert not (handed.folder / "pause-1.json").exists()
    assert not (handed.folder / "ann.node.signed").exists(), "nothing was signed"


def test_a_certificate_for_people_says_what_is_signed(handed: Town) -> None:
    (handed.folder / "params.toml").write_text("fee_bps = 777\n")
    _, said, _ = handed.try_("ann", "params", "propose", "params.toml", "--out", "params.json")
    assert said.startswith("wrote params.json\n")
    assert "  params.terms.fee_bps 777" in said
    assert "signatures 1, weight 1 of 4: no quorum yet" in said
    _, said, _ = handed.try_("bob", "certificate", "show", "params.json")
    assert "  * changes fee_bps 200 -> 777" in said
    assert "  * waits 3 d once it landed, then `gpupool pool params apply` puts it in force" in said
    assert f"  signed: {key('node of ann').public.hex()[:16]}\n  missing: " in said
    assert "next, until 2027-01-22 08:00 UTC: operators of weight 2 or more run " in said
    (handed.folder / "code.boc").write_bytes(layout.top_up_body().to_boc())
    handed.run("bob", "upgrade", "propose", "pool", "code.boc", "--out", "code.json")
    _, said, _ = handed.try_("bob", "certificate", "show", "code.json")
    assert "the code is NOT that of this version of gpupool" in said


@pytest.mark.parametrize(
    "command",
    [
        ["close"],
        ["fees-to", str(wallet_of("bob")), "0.1"],
        ["owner-message", str(wallet_of("bob")), "1", "--body", "b.boc"],
    ],
    ids=lambda command: command[0],
)
def test_what_cannot_be_undone_is_not_signed_without_consent(handed: Town, command: list[str]) -> None:
    handed.run("bob", "pay", "30")
    handed.chain.advance(EPOCH_S)
    handed.run("bob", "finalize")
    (handed.folder / "b.boc").write_bytes(layout.top_up_body().to_boc())
    code, out, errors = handed.try_("ann", *command, "--out", "file.json")
    assert code == 2
    assert f"command   {command[0].replace('-', '_')}" in out
    assert errors == "gpupool: nothing was signed; this cannot be undone: add --yes to do it\n"
    assert not (handed.folder / "file.json").exists()
    assert not (handed.folder / "ann.node.signed").exists()
    assert handed.run("ann", *command, "--out", "file.json", "--dry-run")["written"] is False
    assert handed.run("ann", *command, "--out", "file.json", "--yes")["weight"] == 1


def test_a_removal_says_when_the_stake_can_go(handed: Town) -> None:
    dan = str(wallet_of("dan"))
    _, said, _ = handed.try_("ann", "remove", dan, "--dry-run")
    assert "  * suspends it; its stake of 100 TON can be paid back 7 d later\n" in said
    handed.run("dan", "withdraw", "request", "all")
    handed.chain.advance(6 * DAY_S)
    _, said, _ = handed.try_("ann", "remove", dan)
    assert "  * suspends it; its whole stake of 100 TON can be paid back from 2027-01-22 08:" in said
    assert " UTC, as it asked before: slash first, if at all\n" in said


def test_no_signature_is_noted_that_no_file_would_hold(handed: Town) -> None:
    (handed.folder / "there.json").write_text("")
    for out, said in (("there.json", "exists already"), ("none/pause.json", "cannot be written")):
        assert said in handed.refused("ann", "pause", "--out", out)
    assert not (handed.folder / "ann.node.signed").exists()
    handed.run("ann", "registration", "shut")


def test_a_certificate_about_who_left_can_still_be_read(handed: Town) -> None:
    dan = str(wallet_of("dan"))
    handed.run("ann", "slash", dan, "--reason", "offline", "--valid-days", "30", "--out", "slash.json")
    handed.run("dan", "withdraw", "request", "all")
    handed.chain.advance(7 * DAY_S)
    handed.run("dan", "withdraw", "complete")
    shown = handed.run("cid", "certificate", "show", "slash.json")
    assert (shown["obstacle"], shown["weight"]) == ("that participant left", 1)
    code, said, _ = handed.try_("cid", "certificate", "show", "slash.json")
    assert code == 0
    assert said.endswith("it cannot land: that participant left\n")
    assert "that participant left" in handed.refused("cid", "certificate", "sign", "slash.json", "--yes")


def test_a_certificate_for_a_pool_without_operators_can_be_read(town: Town) -> None:
    town.deploy()
    domain = CertificateDomain(global_id=DEVNET_GLOBAL_ID, pool=town.pool, set_id=1)
    file = CertificateFile(domain=domain, valid_until_s=2_000_000_000, command=Pause(gov_seqno=1))
    certificates.write(town.folder / "early.json", file)
    shown = town.run("ann", "certificate", "show", "early.json")
    assert (shown["obstacle"], shown["is_quorum"]) == ("the owner still runs this pool", None)
    assert "the owner still runs this pool" in town.refused("ann", "certificate", "sign", "early.json", "--yes")


def test_a_crowd_of_unequal_weights_is_warned_of(handed: Town) -> None:
    lines = [f'[[operators]]\nnode_key = "{i:064x}"\nweight = {{}}\n' for i in range(141)]
    for name, weights in (("equal.toml", [2] * 141), ("unequal.toml", [1, *[2] * 140])):
        (handed.folder / name).write_text("".join(line.format(w) for line, w in zip(lines, weights, strict=True)))
    assert handed.try_("ann", "set", "propose", "equal.toml", "--dry-run")[2] == ""
    code, _, errors = handed.try_("ann", "set", "propose", "unequal.toml", "--dry-run")
    assert code == 0
    assert errors.startswith("gpupool: 141 operators of unequal weights: acceptance may need more signatures than fit")
