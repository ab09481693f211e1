"""What is told of versions, and where a journal is: the words, and nothing that is decided."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pool_fixture import POOL, key

from agent import versions
from agent.versions import AGENTS_SHOWN_MAX, OTHER_AGENTS, count_agents, count_versions, place_of, rift_text
from gossip.acquaintances import Acquaintances, Rift, Run
from gossip.hello import Hello, encode_hello, make_instance

NOW_S = 1_800_000_000


def test_a_copy_of_a_journal_is_at_another_place_and_the_file_itself_stays(tmp_path: Path) -> None:
    journal, copy = tmp_path / "journal.sqlite", tmp_path / "copy.sqlite"
    journal.write_bytes(b"journal")
    shutil.copy2(journal, copy)
    here = place_of(journal)
    assert len(here) == 16
    journal.write_bytes(b"grown")
    assert place_of(journal) == here
    assert place_of(copy) != here


def test_after_a_reboot_every_place_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(versions, "BOOT_ID", boot)
    boot.write_text("3f2c\n")
    before = place_of(tmp_path)
    boot.write_text("77aa\n")
    assert place_of(tmp_path) != before
    boot.unlink()
    assert place_of(tmp_path) != place_of(tmp_path), "where no boot is known, no place is trusted"


def test_versions_of_strangers_words_are_counted_under_few_names() -> None:
    known = Acquaintances(key(0), POOL, Run(agent="a", id=bytes(16), started_s=NOW_S), policies=list)
    known.keep_only([key(i).public for i in range(1, 15)])
    for i in range(1, 15):
        agent = "common" if i <= 3 else f"agent/{i}"
        instance = make_instance(key(i), POOL, instance=bytes(16), started_s=NOW_S, said_s=NOW_S)
        said = Hello(protocols=(1,), tallies=(1,), agent=agent, policies=(), instance=instance)
        known.take(key(i).public, encode_hello(said), NOW_S, None)
    counted = count_agents(known)
    assert counted["common"] == 3
    assert len(counted) == AGENTS_SHOWN_MAX + 1
    assert sum(counted.values()) == 14


@pytest.mark.parametrize(
    ("agent", "is_version"),
    [
        ("gpupool-agent/0.1.0", True),
        ("gpupool-agent/1.2.3rc1", True),
        ("gpupool-agent/1.2.dev4", True),
        ("other/2", True),
        ("gpupool-agent/1.2.3+0123456789abcdef", False),
        ("gpupool-agent/", False),
        ("gpupool-agent", False),
        ("1.2.3", False),
        ("", False),
        ('x/1",a="', False),
    ],
)
def test_for_metrics_what_looks_like_no_version_is_none(agent: str, is_version: bool) -> None:
    known = Acquaintances(key(0), POOL, Run(agent="a", id=bytes(16), started_s=NOW_S), policies=list)
    known.keep_only([key(1).public])
    instance = make_instance(key(1), POOL, instance=bytes(16), started_s=NOW_S, said_s=NOW_S)
    said = Hello(protocols=(1,), tallies=(1,), agent=agent, policies=(), instance=instance)
    known.take(key(1).public, encode_hello(said), NOW_S, None)
    assert count_versions(known) == {agent if is_version else OTHER_AGENTS: 1}


@pytest.mark.parametrize(
    ("rift", "said"),
    [
        (
            Rift(what="tally", weight=1, newer_weight=1, total_weight=4, theirs=(2,), ours=(1,)),
            "settle without them; see whether there is a newer agent",
        ),
        (
            Rift(what="tally", weight=2, newer_weight=2, total_weight=4, theirs=(2,), ours=(1,)),
            "cannot settle with them; upgrade this agent",
        ),
        (
            Rift(what="tally", weight=3, newer_weight=3, total_weight=4, theirs=(2,), ours=(1,)),
            "settle without this agent; upgrade this agent",
        ),
        (
            Rift(what="protocol", weight=2, newer_weight=0, total_weight=4, theirs=(1,), ours=(2,)),
            "cannot settle with them; they have to upgrade",
        ),
    ],
    ids=["few", "half", "most", "behind"],
)
def test_what_is_said_of_a_rift(rift: Rift, said: str) -> None:
    assert said in rift_text(rift)
    assert f"{rift.weight} of 4 of the weight" in rift_text(rift)
