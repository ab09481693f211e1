"""The command line as far as it needs no chain: exit codes, one line on what is wrong, no traceback."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from agent_on_disk import answering
from pool_fixture import POLICY_TEXT

from agent.cli import main
from agent.config import load_config
from agent.identity import load_key
from agent.journal import open_journal
from gossip.records import PoolId

KEY_BASE64 = "hyHNnrPKZZSDpEw1IqKwbe28T1OFoFGjRDjJ8yTXPuE="
SERVER = f"127.0.0.1:4924:{KEY_BASE64}"
POOL = "0:" + "ab" * 32
NODE_KEY = "cd" * 32


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the user types: a policy, a software platform, its root."""
    (tmp_path / "policy.toml").write_text(POLICY_TEXT)
    (tmp_path / "root.der").write_bytes(b"root")
    (tmp_path / "platform").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init_arguments(**changes: str | None) -> list[str]:
    values = {
        "dir": "agent",
        "network": "-217",
        "pool": POOL,
        "policy-file": "policy.toml",
        "liteserver": SERVER,
        "engine": "http://127.0.0.1:8000/metrics",
        "software-dir": "platform",
        "software-root": "root.der",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return ["init", *(f"--{name}={value}" for name, value in values.items() if value is not None)]


def deploy_arguments(**changes: str) -> list[str]:
    values = {"liteserver": SERVER, "network": "-217", "wallet-key": "owner.key", "policy-file": "policy.toml"}
    values |= {name.replace("_", "-"): value for name, value in changes.items()}
    return ["pool", "deploy", *(f"--{name}={value}" for name, value in values.items())]


HAND_OVER = ["pool", "hand-over"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        # what is not there
        (["run", "--config", "none.toml"], 2, "none.toml: missing; `gpupool init`"),
        (["status", "--config", "."], 2, "cannot be read: Is a directory"),
        (["pool", "status", "--config", "none.toml"], 2, "none.toml: missing"),
        (init_arguments(policy_file="none.toml"), 2, "--policy-file none.toml: no such file"),
        (init_arguments(policy_file="platform"), 2, "--policy-file platform: no such file"),
        (init_arguments(software_dir="none"), 2, "--software-dir none: no such folder"),
        (init_arguments(software_root="none"), 2, "--software-root none: no such file"),
        (deploy_arguments(policy_file="none.toml"), 2, "none.toml: cannot be read"),
        (deploy_arguments(), 2, "owner.key: missing"),
        # what is not allowed
        (init_arguments(policy_file="root.der"), 2, "root.der: policy: "),
        (init_arguments(network="devnet"), 2, '--network devnet: expected "mainnet", "testnet" or a global id'),
        (init_arguments(network="2147483648"), 2, "--network 2147483648: expected"),
        (init_arguments(network="testnet"), 2, "agent/agent.toml: attestation.provider: the software platform counts"),
        (init_arguments(network="-239"), 2, "software platform counts on development networks only"),
        (init_arguments(pool="nowhere"), 2, "--pool: not a TON address: 'nowhere'"),
        (init_arguments(pool="-1:" + "ab" * 32), 2, "agent/agent.toml: pool.address: expected an address in workchain"),
        (init_arguments(liteserver="127.0.0.1:4924"), 2, "--liteserver 127.0.0.1:4924: expected HOST:PORT:KEY"),
        (init_arguments(liteserver=f"127.0.0.1:0:{KEY_BASE64}"), 2, "expected HOST:PORT:KEY"),
        (init_arguments(liteserver=f"::1:4924:{KEY_BASE64}"), 2, "expected HOST:PORT:KEY"),
        (init_arguments(liteserver="127.0.0.1:4924:AAAA"), 2, "expected HOST:PORT:KEY"),
        (init_arguments(engine="127.0.0.1:8000"), 2, "agent/agent.toml: engine.url: expected a URL like"),
        (init_arguments(engine="http://"), 2, "agent/agent.toml: engine.url: expected a URL like"),
        (init_arguments(peer="cdcd@/ip4/127.0.0.1/tcp/1"), 2, "--peer cdcd@/ip4/127.0.0.1/tcp/1: expected NODEKEY@"),
        (init_arguments(peer=f"{NODE_KEY}@127.0.0.1:4001"), 2, "expected NODEKEY@MULTIADDR"),
        (init_arguments(listen="0.0.0.0:4001"), 2, "agent/agent.toml: p2p.listen[0]: expected a multiaddr like /ip4/"),
        (init_arguments(announce="x"), 2, "agent/agent.toml: p2p.announce[0]: expected a multiaddr like /ip4/"),
        (init_arguments(web_port="65536"), 2, "agent/agent.toml: web.port: expected a port"),
        (deploy_arguments(min_stake="inf"), 2, "--min-stake inf: expected an amount of TON above 0"),
        (deploy_arguments(min_stake="0"), 2, "--min-stake 0: expected an amount of TON above 0"),
        (deploy_arguments(fee_bps="10001"), 2, "pool deploy: fee_bps: expected 0..10000"),
        (deploy_arguments(max_participants="-1"), 2, "pool deploy: max_participants: expected 0..10000"),
        (deploy_arguments(pool_id="-1"), 2, "pool deploy: pool_id: expected an unsigned integer"),
        (deploy_arguments(epoch_seconds="0"), 2, "--epoch-seconds 0: expected at least a second"),
        (
            [*HAND_OVER, "--pool", POOL],
            2,
            "pool hand-over: --network, --wallet-key, --liteserver or --global-config missing",
        ),
        ([*HAND_OVER, "--config", "none.toml"], 2, "none.toml: missing"),
        (["keys", "create", "root.der"], 2, "root.der: exists already; a key is never overwritten"),
        (["keys", "create", "new.key", "--network", "?"], 2, "--network ?: expected"),
    ],
)
def test_one_line_says_what_is_wrong(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(arguments) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert said in output.err
    assert output.err.startswith("gpupool: ")
    assert output.err.count("\n") == 1
    assert sorted(path.name for path in place.iterdir()) == ["platform", "policy.toml", "root.der"], "nothing is made"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND missing, one of init, run, status, "),
        (["dance"], "invalid choice: 'dance'"),
        (["pool"], "COMMAND missing, one of deploy, "),
        (["pool", "dance"], "invalid choice: 'dance'"),
        (["devnet", "--agents", "many"], "invalid int value: 'many'"),
        (["init"], "required: --network"),
        (["keys", "create"], "required: FILE"),
        (["version", "--loud"], "unknown arguments: --loud; see `gpupool version --help`"),
        (["pool", "claim", "--pool", "x"], "unknown arguments: --pool x; see `gpupool pool claim --help`"),
        (["run", "--json"], "unknown arguments: --json; see `gpupool run --help`"),
        (["--json", "status"], "--json goes after the command: gpupool COMMAND --json; see `gpupool --help`"),
        (["--config", "x", "status"], "--config goes after the command: gpupool COMMAND --config FILE; "),
        (["--config=x", "status"], "--config goes after the command: gpupool COMMAND --config FILE; "),
        (["pool", "--config", "x", "claim"], "goes after the command: gpupool pool COMMAND --config FILE; see "),
        (["pool", "stake", "--json", "add", "1"], "goes after the command: gpupool pool stake COMMAND --json; "),
        (["statu"], "invalid choice: 'statu'; did you mean status?; see `gpupool --help`"),
        (["pool", "clam"], "invalid choice: 'clam'; did you mean claim?; see `gpupool pool --help`"),
        (["pool", "pay", "1\n2", "a\x1b[2J"], "unknown arguments: a\\x1b[2J; "),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.startswith("gpupool: ")
    assert " --help`" in errors
    assert errors.count("\n") == 1


def test_help_and_debug_come_before_the_order_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code, said in (
        (["--help", "--json"], 0, ""),
        (["--version", "--json"], 0, ""),
        (["--debug", "--json", "status"], 2, "--json goes after the command: gpupool COMMAND --json; "),
        (["--debug", "pool", "--json"], 2, "--json goes after the command: gpupool pool COMMAND --json; "),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == code
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("surprise = 1", "surprise: unknown key; known here are "),
        ("data_dir = 1", "data_dir: expected text in quotes, not a whole number (line 1)"),
        ('"\\u001b[2J\\nx" = 1', r"\x1b[2J\nx: unknown key"),
    ],
)
def test_a_config_that_is_none(place: Path, capsys: pytest.CaptureFixture[str], line: str, said: str) -> None:
    assert main(init_arguments()) == 0
    path = place / "agent" / "agent.toml"
    kept = [old for old in path.read_text().splitlines() if not line.startswith(old.split(" ")[0] + " ")]
    path.write_text("\n".join([line, *kept]))
    capsys.readouterr()
    for command in (["run"], ["status"], ["pool", "claim"], ["pool", "register"]):
        assert main([*command, "--config", str(path)]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith(f"gpupool: {path}: {said}")
        assert errors.count("\n") == 1


@pytest.mark.parametrize("stake", ["nan", "inf", "-1", "0", "1e3", "1.0000000001", "", "1_0", "٣"])
def test_a_stake_is_an_amount(place: Path, capsys: pytest.CaptureFixture[str], stake: str) -> None:
    assert main(init_arguments()) == 0
    capsys.readouterr()
    assert main(["pool", "register", "--config", "agent/agent.toml", f"--stake={stake}"]) == 2
    assert capsys.readouterr().err.startswith(f"gpupool: --stake {stake}: expected an amount of TON above 0")


def test_a_participant_is_an_address(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(init_arguments()) == 0
    capsys.readouterr()
    assert main(["pool", "claim", "--config", "agent/agent.toml", "--participant", "me"]) == 2
    assert capsys.readouterr().err == "gpupool: --participant: not a TON address: 'me'\n"


def test_a_status_without_an_agent(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(init_arguments(web_port="0")) == 0
    capsys.readouterr()
    assert main(["status", "--config", "agent/agent.toml"]) == 1
    assert "no agent answers at http://127.0.0.1:0/-/status; is it running?" in capsys.readouterr().err


def test_a_window_too_long_for_the_policy_names_file_and_key(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(init_arguments()) == 0
    path = place / "agent" / "agent.toml"
    path.write_text(path.read_text().replace("window_s = 30", "window_s = 31"))
    capsys.readouterr()
    assert main(["run", "--config", str(path)]) == 2
    expectation = "expected 1 to 30 (half of the policy's work.window_max_s), not 31"
    assert capsys.readouterr().err.endswith(f"gpupool: {path}: meter.window_s: {expectation}\n")
    assert main(["config", "check", str(path)]) == 2
    assert f"gpupool: {path}: meter.window_s: {expectation}\n" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    text = capsys.readouterr().out
    assert main(["version", "--json"]) == 0
    assert text == f"gpupool-agent {json.loads(capsys.readouterr().out)['version']}\n"


def test_init_makes_what_run_needs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [f"--peer={NODE_KEY}@/ip4/203.0.113.7/tcp/4001", f"--peer={NODE_KEY}@/dns4/a.example/tcp/4001"]
    more += ["--listen=/ip4/127.0.0.1/tcp/4001", "--announce=/ip4/203.0.113.9/tcp/4001", "--data-dir=journals"]
    server = f"[::1]:4924:{KEY_BASE64}"
    assert main([*init_arguments(liteserver=server, web_port="9465"), *more, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    config = load_config(Path(made["config"]))
    assert config.path == place / "agent" / "agent.toml"
    assert config.resolve(config.pool.policy_file) == place / "agent" / "policy.toml"
    assert (place / "agent" / "policy.toml").read_text() == POLICY_TEXT
    assert config.resolve(config.attestation.software_dir) == place / "platform"
    assert config.resolve(config.attestation.software_root_file) == place / "root.der"
    assert config.data_dir == place / "journals"
    assert config.chain.liteservers[0].host == "::1"
    assert config.web.port == 9465
    assert config.p2p.listen == ("/ip4/127.0.0.1/tcp/4001",)
    assert config.p2p.announce == ("/ip4/203.0.113.9/tcp/4001",)
    (peer,) = config.p2p.peers
    assert (peer.node_key, peer.addresses) == (NODE_KEY, ("/ip4/203.0.113.7/tcp/4001", "/dns4/a.example/tcp/4001"))
    assert config.meter.window_s == 30, "the policy's longest window is 60 s"
    node_key = load_key(config.resolve(config.identity.node_key_file)).public
    assert made["node_key"] == node_key.hex()
    open_journal(config.journal_file, node_key=node_key, pool=PoolId(-217, bytes.fromhex("ab" * 32))).close()


def test_init_says_what_will_not_earn(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*init_arguments(engine=None), "--cocoon=0"]) == 0
    said = capsys.readouterr().err
    assert "this pool counts the figures of --engine: what --cocoon measures earns nothing in it" in said
    assert "no --peer is named" in said


def test_what_is_no_agent_is_not_quoted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering({"/-/status": (503, b"<!DOCTYPE html><p>down for maintenance</p>")}) as port:
        assert main(init_arguments(web_port=str(port))) == 0
        capsys.readouterr()
        assert main(["status", "--config", "agent/agent.toml"]) == 1
    said = capsys.readouterr().err
    assert "answered status 503 with a page: what listens there is not an agent; see web.port" in said
    assert "<" not in said


def test_a_key_is_made_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "owner.key", "--network", "testnet", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    path = place / "owner.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path).public.hex() == made["public_key"]
    assert made["wallet"].startswith("0:")
    before = path.read_bytes()
    assert main(["keys", "create", "owner.key"]) == 2
    assert path.read_bytes() == before


def test_a_key_without_a_network_has_no_wallet_yet(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "owner.key"]) == 0
    said = capsys.readouterr().out
    assert "public " in said
    assert "wallet" not in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attest": "cocoon", "software_dir": None}, "--guest is missing: HOST:PORT of the Cocoon worker's TLS port"),
        ({"attest": "cocoon", "guest": "127.0.0.1:1"}, "--software-dir: is for --attest software"),
        ({"attest": "configfs"}, "--software-dir: is for --attest software"),
        ({"attest": "configfs", "guest": "127.0.0.1:1", "software_dir": None}, "--guest: is for --attest cocoon"),
        ({"guest": "127.0.0.1:1", "software_dir": None}, "--guest: is for --attest cocoon"),
        ({"attest": "software", "guest": "127.0.0.1:1"}, "--guest: is for --attest cocoon"),
    ],
)
def test_what_proves_the_host_is_said_without_contradiction(
    place: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str | None], said: str
) -> None:
    assert main(init_arguments(**changes)) == 2
    assert capsys.readouterr().err == f"gpupool: {said}\n"
    assert not (place / "agent").exists()


def run(arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own, from a shell."""
    command = ["/bin/sh", "-c", f"{sys.executable} -m agent {arguments}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", ["version", "version --json", "--help", "attest verify --help"])
@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        (">/dev/full", 74, "gpupool: standard output: cannot be written: No space left on device\n"),
        (">&-", 74, "gpupool: standard output is closed\n"),
    ],
)
def test_an_answer_that_cannot_be_written_is_no_verdict(arguments: str, target: str, code: int, said: str) -> None:
    done = run(f"{arguments} {target}")
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize("arguments", ["version", "--help"])
def test_a_reader_that_went_away_hears_nothing(arguments: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "agent", *arguments.split()]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("target", ["2>&-", "2>/dev/full"])
def test_remarks_that_nobody_reads_change_no_exit_code(target: str) -> None:
    assert run(f"status --config none.toml {target}").returncode == 2


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_an_error_in_the_program_is_no_verdict(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, debug: list[str]
) -> None:
    def broken(given: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("agent.attest.verifying.judge", broken)
    assert main([*debug, "attest", "verify", "policy.toml", "--collateral", "policy.toml"]) == 70
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith("gpupool: unexpected RuntimeError: broken (`gpupool --debug` shows where)\n")
    assert ("Traceback" in said.err) == bool(debug)
