"""The cage and its rooms, in earnest: with namespaces, TUN devices and the switch."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos import cage
from tests.chaos.__main__ import main
from tests.chaos.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]

in_earnest = pytest.mark.skipif(cage.hindrance() is not None, reason=f"{cage.hindrance()}")

ROOMS = """
import json, sys, time, trio
from tests.chaos import cage
from tests.chaos.links import Link
from tests.chaos.network import open_network

SERVER = "import socket\\ns = socket.create_server(('10.77.0.1', 4000))\\nprint(flush=True)\\nwhile True: s.accept()"
CLIENT = "import socket, sys\\nsocket.create_connection(('10.77.0.1', 4000), timeout=1)"

async def reaches(network):
    program = [*network.rooms["b"].enter, sys.executable, "-c", CLIENT]
    since_s = time.monotonic()
    done = await trio.run_process(program, check=False, capture_stderr=True)
    return time.monotonic() - since_s if done.returncode == 0 else None

async def run():
    async with open_network(["a", "b"], "home", 1) as network, trio.open_nursery() as nursery:
        program = [*network.rooms["a"].enter, sys.executable, "-c", SERVER]
        server = await trio.lowlevel.open_process(program, stdout=-1)
        await server.stdout.receive_some()
        told = [await reaches(network)]
        await network.divide(["a"], ["b"])
        told.append(await reaches(network))
        await network.heal()
        told.append(await reaches(network))
        await network.set([("a", "b"), ("b", "a")], Link(delay_s=0.2))
        told.append(await reaches(network))
        server.kill()
    with open("/proc/net/route") as file:
        told.append(any(line.split()[1] == "00000000" for line in file))
    print(json.dumps(told))
    return 7

sys.exit(cage.inside(lambda: trio.run(run)))
"""

HOLDER = """
import fcntl, sys, time
from tests.chaos import cage

def hold():
    file = open(sys.argv[1])
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(600)
    return 0

sys.exit(cage.inside(hold))
"""


@in_earnest
@pytest.mark.slow
def test_rooms_reach_each_other_as_the_network_says_and_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", ROOMS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    at_once_s, cut, healed_s, delayed_s, leads_out = json.loads(done.stdout)
    assert at_once_s is not None
    assert cut is None
    assert healed_s is not None
    assert delayed_s >= 0.4  # there and back, and that is what it asks for at least
    assert not leads_out


@in_earnest
@pytest.mark.slow
def test_nothing_is_left_of_a_cage_whose_maker_is_killed(tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(held)], cwd=ROOT, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"held\n"
        maker.kill()
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for whoever holds it to end


def test_without_root_it_is_skipped_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main([]) == 0
    assert capsys.readouterr().out == "skipped: needs root and /dev/net/tun\n"


def test_what_there_is_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    told = capsys.readouterr().out
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS) == 13
    assert all(f"{scenario.name}" in told for scenario in SCENARIOS)
    assert any(scenario.is_quick for scenario in SCENARIOS)
