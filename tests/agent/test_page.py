"""The status page as HTML: what it says of each state, in which order, how large it gets, and that texts stay texts."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from doctor_facts import NOW_S
from hypothesis import given
from hypothesis import strategies as st
from page_facts import (
    broken,
    chain,
    close,
    diagnosis,
    entry,
    epoch,
    evidence,
    gpus,
    neighbours,
    node_key,
    own,
    page_facts,
    source,
    status,
)
from page_reader import Reader, shown

from agent.page.document import page
from agent.page.facts import Said
from agent.page.html import document, moment, span, tag
from agent.page.verdict import CURRENT_S, STARTING_S, Level, verdict_of
from contracts.model import NANO


def test_an_owner_reads_first_what_matters_most() -> None:
    text = shown(page_facts())
    order = (
        "You earn",
        "Epoch 41 credited 1,204,551 tokens, a share of 12.3 %",
        "What to do",
        "gpupool pool claim",
        "18.402 TON",
        "Runs out",
        "Epoch 42 closes: 4 of 7 attested (57 %), 5 needed: no quorum yet",
        "312.4 tokens/s",
        "Operators connected 6 of 6",
        "48,210,771",
        "Last epochs",
    )
    places = [text.index(each) for each in order]
    assert places == sorted(places)


def test_a_host_that_does_not_earn_says_why_and_what_to_do() -> None:
    text = shown(broken())
    assert "You do not earn The engine does not answer at http://127.0.0.1:8000/metrics: connection refused." in text
    assert "What to do: Start the engine, or correct engine.url." in text
    assert text.count("The engine does not answer") == 1, "the cause is not told twice"
    assert "Not more than two thirds of the operators' weight" in text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"diagnosis": None}, "You earn Epoch 41 credited 1,204,551 tokens, a share of 12.3 %. The doctor is looking"),
        ({"diagnosis": None, "trouble": "waiting for the chain"}, "Not ready to earn Waiting for the chain."),
        (
            {"diagnosis": None, "status": status(own=None), "epochs": ()},
            "Nothing settled yet The agent runs and takes part.",
        ),
        ({"diagnosis": None, "status": status(own=None)}, "Not known yet The agent runs and takes part."),
        (
            {"diagnosis": None, "status": status(own=own(score=0, reasons=["no evidence (3 tokens)"]))},
            "Nothing earned in epoch 41 No evidence (3 tokens).",
        ),
        (
            {"diagnosis": None, "status": status(own=own(score=0))},
            "Nothing earned in epoch 41 The agent runs and takes part.",
        ),
        (
            {"diagnosis": None, "silence": "it did not end"},
            "The doctor says nothing; its next look failed: it did not end",
        ),
        (
            {"trouble": "the chain: away", "diagnosis": diagnosis(earns=False, verdict="you do not earn: why")},
            "The agent says now: the chain: away",
        ),
        ({"silence": "it did not end"}, "71 checks are fine; its next look failed: it did not end"),
        (
            {
                "diagnosis": diagnosis(
                    earns=None, verdict="nothing keeps you from earning; no epoch has been settled yet"
                )
            },
            "Nothing keeps you from earning Nothing keeps you from earning; no epoch has been settled yet.",
        ),
        (
            {"diagnosis": diagnosis(verdict="you earn for uptime alone: 0 of 9 tokens credited")},
            "You earn for uptime alone 0 of 9 tokens credited.",
        ),
        ({"diagnosis": diagnosis(earns=False, verdict="you do not earn: why", findings=())}, "You do not earn Why."),
        ({"diagnosis": diagnosis(unknown=2)}, "71 checks are fine, 2 could not be made"),
        ({"epochs": (), "no_epochs": "ledger.sqlite: missing"}, "Last epochs ledger.sqlite: missing"),
        (
            {"epochs": (epoch(1, metered_tokens=None, earned_nanoton=None, settled_s=None),)},
            "1 not known – 11.90 % 1,200,991 –",
        ),
        ({"neighbours": neighbours(1, 0)}, "No other node is known yet"),
        ({"neighbours": neighbours(180, 9820)}, "9,964 more nodes are not shown"),
        ({"neighbours": replace(neighbours(), operators_unusable=1)}, "note: 1 connected operator not in reach"),
    ],
)
def test_what_is_known_is_shown(changes: dict[str, Any], text: str) -> None:
    assert text in shown(page_facts(**changes))


OLD_FINDING = Said(severity="problem", code="no-part", cause="epoch 40 credited nothing", fix="look")
NOT_EARNING = diagnosis(earns=False, verdict="you do not earn: no part in epoch 40", findings=(OLD_FINDING,))


@pytest.mark.parametrize(
    ("changes", "headline"),
    [
        ({"diagnosis": replace(NOT_EARNING, found_s=NOW_S - int(CURRENT_S))}, "You do not earn"),
        ({"diagnosis": replace(NOT_EARNING, epoch=None)}, "You do not earn"),
        ({"diagnosis": replace(NOT_EARNING, epoch=0), "status": status(own=None)}, "You do not earn"),
        ({"diagnosis": replace(NOT_EARNING, found_s=NOW_S - int(CURRENT_S) - 1)}, "You earn"),
        ({"diagnosis": replace(NOT_EARNING, found_s=NOW_S + 1)}, "You earn"),
        ({"diagnosis": replace(NOT_EARNING, epoch=40)}, "You earn"),
        ({"diagnosis": replace(NOT_EARNING, epoch=0)}, "You earn"),
        ({"diagnosis": replace(NOT_EARNING, found_s=0), "trouble": "the chain: away"}, "Not ready to earn"),
    ],
)
def test_an_answer_that_is_not_current_says_nothing(changes: dict[str, Any], headline: str) -> None:
    facts = page_facts(**changes)
    text, is_current = shown(facts), headline == "You do not earn"
    assert verdict_of(facts).headline == headline
    assert ("Epoch 40 credited nothing" in text) is is_current
    assert ("The doctor looked" in text) is is_current
    assert ("The doctor is looking" in text) is not is_current


@pytest.mark.parametrize("earns", [True, None])
def test_what_the_agent_knows_now_goes_before_an_answer_that_finds_nothing_wrong(earns: bool | None) -> None:
    text = shown(page_facts(diagnosis=diagnosis(earns=earns), trouble="no operator connected"))
    assert "Not ready to earn No operator connected." in text
    assert text.count("o operator connected") == 1
    assert "The doctor looked" in text


@pytest.mark.parametrize(("uptime_s", "level"), [(STARTING_S - 1, Level.OPEN), (STARTING_S, Level.BAD)])
def test_not_ready_is_bad_once_the_start_is_over(uptime_s: int, level: Level) -> None:
    for found in (None, diagnosis()):
        facts = page_facts(diagnosis=found, trouble="the chain: away", status=status(uptime_s=uptime_s))
        assert verdict_of(facts).level is level


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"chain": None}, "The chain was not reached yet."),
        (
            {"chain": chain(error="refused", clock="this host's clock is ahead")},
            "refused warning: this host's clock is ahead",
        ),
        ({"chain": chain(epoch_end_s=NOW_S - 61)}, "Epoch 43 runs; it ended 61 s ago"),
        ({"close": None}, "No epoch is closing."),
        ({"close": close(total_weight=0)}, "No epoch is closing."),
        ({"close": None}, "Epoch 43 runs; it ends in 5 h 33 min ; 75 % of its time is over."),
        ({"close": None}, "75 % of the time of epoch 43 is over"),
        ({"close": None}, "Close of epoch 41 7 of 7 attested (100 %), 5 needed Settled last epoch 41, 16 h 38 min ago"),
        ({"close": None, "chain": chain(epoch_end_s=NOW_S - 61)}, "100 % of the time of epoch 43 is over"),
        (
            {"close": close(attested_weight=7, certified=True, unattested=[])},
            "7 of 7 attested (100 %), 5 needed: certified",
        ),
        ({"close": close(attested_weight=0, view=None, leader=None)}, f"Missing {node_key(4)[:8]}"),
        ({"close": close(unattested=[node_key(i) for i in range(14)])}, "and 2 more"),
        ({"claimable_nanoton": 0}, "to be claimed: all that was earned is paid"),
        ({"claimable_nanoton": 0, "own": own(earned_nanoton=0)}, "to be claimed: nothing was earned yet"),
        ({"own": None, "entry": None, "claimable_nanoton": None}, "Nothing is known of the own entry yet."),
        ({"own": own(total_score=0)}, "0.0 % of epoch 41"),
        ({"entry": entry(not_earning="the stake is too small")}, "problem: the stake is too small"),
        ({"entry": entry(pending_nanoton=NANO, withdraw_at_s=NOW_S + 90)}, "1.000 TON asked back, paid in 90 s"),
        (
            {"entry": entry(held_nanoton=NANO, held_until_s=NOW_S + 90)},
            "1.000 TON slashed; an appeal is possible until in",
        ),
        (
            {"evidence": evidence(valid=False, valid_until_s=None, own=None)},
            "No evidence is in force: it is being made.",
        ),
        ({"evidence": evidence(alarm="no TDX")}, "warning: no TDX"),
        ({"evidence": evidence(valid=False, alarm="no TDX")}, "problem: no TDX"),
        ({"evidence": evidence(place_taken_by="ab" * 32)}, "abababab holds the place on this machine"),
        (
            {"evidence": evidence(place_taken_by="ab" * 32, is_gpu_taken=True)},
            "holds the place on a GPU that this host",
        ),
        ({"evidence": evidence(collateral_error={"message": "PCS is away"})}, "Collateral is not renewed: PCS is away"),
        ({"sources": []}, "No source is set, or none was read yet."),
        ({"sources": [source(error="refused", sampled_s=None)]}, "not read yet problem: refused"),
        (
            {"sources": [source(instance=1, notes=["restarted"])]},
            "engine-1 vllm read 3 s ago note: restarted",
        ),
        ({"sources": [source(gauges={f"g{i:03}": i for i in range(60)})]}, "and 20 more: sudo gpupool status --json"),
        ({"sources": [gpus(1)]}, "0e00a04c 93 % 71 of 80 GiB 61 °C 512 W"),
        ({"sources": [source(gauges={'gpu_busy_percent{uuid="GPU-a"}': 7})]}, "a 7 % – – –"),
        ({"not_dialled": {"p2p.peers[0].node_key": "abc is not registered"}}, "warning: abc is not registered"),
        ({"reach": {"weight": 2, "total_weight": 3}}, "as seen from here no epoch can settle"),
    ],
)
def test_each_section_shows_its_state(sections: dict[str, Any], text: str) -> None:
    assert text in shown(page_facts(status=status(**sections)))


@pytest.mark.parametrize(
    ("config", "lead", "option", "unit"),
    [
        ("/etc/gpupool/agent.toml", "sudo gpupool", "", "gpupool-agent"),
        (
            "/etc/gpupool/two/agent.toml",
            "sudo gpupool",
            " --config /etc/gpupool/two/agent.toml",
            "gpupool-agent@two",
        ),
        ("/srv/a.toml", "gpupool", " --config /srv/a.toml", None),
    ],
)
def test_every_command_on_the_page_is_of_the_agent_that_shows_it(
    config: str, lead: str, option: str, unit: str | None
) -> None:
    facts = page_facts(
        config=Path(config),
        trouble="not registered: gpupool pool register",
        diagnosis=diagnosis(earns=None, findings=()),
        status=status(
            entry=entry(not_earning="too little; gpupool pool stake add"),
            sources=[source(gauges={f"g{i:03}": i for i in range(60)})],
            reconciliation={"alarm": "look at it (gpupool work explain)"},
        ),
    )
    read = Reader(page(facts))
    commands = ("pool register", "pool claim", "pool stake add", "work explain", "earnings", "status", "doctor")
    for command in commands:
        assert f"{lead} {command}{option}" in read.text
    named = re.findall(r"gpupool (?:pool|work|earnings|status|doctor)\b", read.text)
    assert len(named) == len(commands), "there is no other one"
    assert read.tags[0][1].get("data-unit") == unit


def test_the_page_stays_small_whatever_the_pool_is_like() -> None:
    many = tuple(Said(severity="warning", code=f"code-{i}", cause="c" * 200, fix="f" * 200) for i in range(40))
    html = page(
        page_facts(
            status=status(sources=[source(instance=i) for i in range(7)] + [gpus(16)]),
            diagnosis=diagnosis(findings=many),
            neighbours=neighbours(180, 9820),
        )
    )
    assert len(html.encode()) < 60_000
    script = files("agent.page").joinpath("assets", "page.js").read_bytes()
    assert len(script) < 6_000


def test_nothing_stands_inline_and_nothing_comes_from_elsewhere() -> None:
    for facts in (page_facts(), broken()):
        tags = Reader(page(facts)).tags
        assert not [name for name, attributes in tags if "style" in attributes or name == "style"]
        assert not [key for _, attributes in tags for key in attributes if key.startswith("on")]
        assert [attributes["src"] for name, attributes in tags if name == "script"] == ["/page.js"]
        linked = [attributes.get("href", "") or "" for _, attributes in tags if "href" in attributes]
        assert all(each.startswith(("/", "#")) and not each.startswith("//") for each in linked)


HOSTILE = '</p></div><script>alert(1)</script><img src=x onerror="alert(2)">&amp;\'"`\x00\x1b[2J\u202e\r\n'


def test_hostile_texts_stay_texts() -> None:
    facts = page_facts(
        trouble=HOSTILE,
        silence=HOSTILE,
        no_epochs=HOSTILE,
        epochs=(),
        diagnosis=diagnosis(
            earns=False,
            verdict=f"you do not earn: {HOSTILE}",
            findings=(Said(severity="note", code="unclaimed", cause=HOSTILE, fix=HOSTILE),),
        ),
        status=status(
            version=HOSTILE,
            chain=chain(error=HOSTILE, clock=HOSTILE),
            sources=[source(provenance=HOSTILE, error=HOSTILE, notes=[HOSTILE], gauges={HOSTILE: 1.0})],
            evidence=evidence(alarm=HOSTILE, collateral_error={"message": HOSTILE}),
            not_dialled={"a": HOSTILE},
        ),
    )
    html = page(facts)
    tags = [name for name, _ in Reader(html).tags]
    assert tags.count("script") == 1
    assert "img" not in tags
    assert not set("\x00\x1b\u202e") & set(html)
    assert html.count("&lt;script&gt;") >= 10


@given(st.text(max_size=200))
def test_any_text_comes_back_as_it_is_read(text: str) -> None:
    ((name, attributes),) = Reader(document(tag("p", text, title=text))).tags
    assert name == "p"
    assert attributes["title"] is not None
    assert attributes["title"].isprintable()
    if text.isprintable():
        assert attributes["title"] == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h 0 min"),
        (48 * 3600 - 1, "47 h 59 min"),
        (48 * 3600, "2 d 0 h"),
        (1 << 62, "53375995583650 d 7 h"),
    ],
)
def test_lengths_of_time(seconds: int, text: str) -> None:
    assert span(seconds) == text


def test_a_moment_is_exact_in_its_title_and_never_beyond_the_calendar() -> None:
    soon, ago = moment(1_800_000_000, 1_799_999_910), moment(0, 60)
    assert (soon.text, soon.get("title")) == ("in 90 s", "2027-01-15 08:00:00 UTC")
    assert (ago.text, ago.get("datetime")) == ("60 s ago", "1970-01-01T00:00:00Z")
    assert moment(1 << 62, 0).get("title") == "9999-12-31 23:59:59 UTC"
    assert moment(-5, 0).get("title") == "1970-01-01 00:00:00 UTC"
