"""The catalogue of metrics and what is made of it: names by the rules, labels within bounds, unknown things absent."""

from __future__ import annotations

import json
import re
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from agent.cli import main
from agent.metrics.catalogue import CATALOGUE
from agent.metrics.host_entries import REASONS_MAX
from agent.metrics.kinds import OTHER, Census, LateCounter, LateGauge, State
from agent.metrics.metric import Kind, Label, Metric, Topic
from agent.metrics.pool_entries import PEERS_MAX, POOL_ENTRIES
from agent.metrics.registry import Metrics


def served(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_all_of_the_catalogue_is_made_and_nothing_else() -> None:
    own = {name for name, metric in CATALOGUE.items() if not metric.is_library}
    assert Metrics(version="1", process=False).made == own
    assert len(POOL_ENTRIES) + 40 < len(CATALOGUE) < 120


def test_what_is_served_bears_the_catalogue_s_names() -> None:
    """The library's own, too: a name that it adds, or drops, is seen here."""
    metrics = Metrics(version="1.2.3")
    for made in vars(metrics).values():
        if isinstance(made, LateGauge):
            made.set(1)
        if isinstance(made, LateCounter):
            made.follow(1)
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", served(metrics), re.MULTILINE))
    assert families.keys() == {metric.full_name for metric in CATALOGUE.values()}
    for metric in CATALOGUE.values():
        assert families[metric.full_name] == ("counter" if metric.kind is Kind.COUNTER else "gauge")
    assert 'gpupool_build_info{version="1.2.3"} 1.0' in served(metrics)


def test_entries_follow_the_rules() -> None:
    for metric in CATALOGUE.values():
        assert not re.search(r"_(ms|millis|minutes|kb|percent|nanoton)\b", metric.name)
        assert metric.text[-1] not in " \n"
        assert metric.use.endswith((".", "?"))
        assert all(label.name not in ("instance", "job") for label in metric.labels), "the target's own labels"
        assert all(label.values_max >= max(1, len(label.values)) for label in metric.labels)
    assert CATALOGUE["wallet_balance_ton"].unit == "ton"
    assert CATALOGUE["earned_ton_total"].unit == "ton"
    assert CATALOGUE["peers"].unit == ""
    assert CATALOGUE["settled_timestamp_seconds"].is_timestamp


@pytest.mark.parametrize(
    ("kind", "name", "labels"),
    [
        (Kind.GAUGE, "Peers", ()),
        (Kind.GAUGE, "peers_total", ()),
        (Kind.COUNTER, "peers", ()),
        (Kind.GAUGE, "build_info", ()),
        (Kind.INFO, "build", ()),
        (Kind.STATE, "state", ()),
        (Kind.STATE, "state", (Label("state", 2),)),
    ],
)
def test_an_entry_against_the_rules_is_refused(kind: Kind, name: str, labels: tuple[Label, ...]) -> None:
    with pytest.raises(ValueError, match=name):
        Metric(topic=Topic.HOST, kind=kind, name=name, text="", use="", labels=labels)


def test_a_gauge_is_absent_until_it_is_known_and_when_it_is_not_any_more() -> None:
    metrics = Metrics(version="1", process=False)
    assert "gpupool_settled_epoch" not in served(metrics)
    metrics.settled_epoch.set(None)
    metrics.settled_epoch.set(0)
    metrics.settled_epoch.set(4)
    assert "gpupool_settled_epoch 4.0" in served(metrics)
    metrics.settled_epoch.set(None)
    assert "gpupool_settled_epoch" not in served(metrics)
    metrics.settled_epoch.set(5)
    assert "gpupool_settled_epoch 5.0" in served(metrics)


def test_a_gauge_asks_when_it_is_asked() -> None:
    metrics, answers = Metrics(version="1", process=False), iter([True, False])
    metrics.ready.ask(lambda: next(answers))
    assert "gpupool_ready 1.0" in served(metrics)
    assert "gpupool_ready 0.0" in served(metrics)


def test_reasons_are_bounded() -> None:
    metrics = Metrics(version="1", process=False)
    for i in range(REASONS_MAX + 5):
        metrics.dropped.inc(f"reason {i}", 2)
    metrics.dropped.inc("reason 0")
    text = served(metrics)
    assert 'gpupool_dropped_total{reason="reason 0"} 3.0' in text
    assert f'gpupool_dropped_total{{reason="{OTHER}"}} 10.0' in text
    assert text.count("gpupool_dropped_total{") == REASONS_MAX + 1


def test_pairs_of_labels_are_bounded_together() -> None:
    metrics = Metrics(version="1", process=False)
    for i in range(REASONS_MAX + 1):
        metrics.sent.inc(("submit", f"outcome {i}"))
    assert f'gpupool_chain_actions_total{{action="{OTHER}",outcome="{OTHER}"}} 1.0' in served(metrics)


def test_a_counter_follows_totals_kept_elsewhere() -> None:
    metrics = Metrics(version="1", process=False)
    metrics.dropped.follow({"garbage": 3})
    metrics.dropped.follow({"garbage": 5, "forged": 1})
    assert 'gpupool_dropped_total{reason="garbage"} 5.0' in served(metrics)
    assert 'gpupool_dropped_total{reason="forged"} 1.0' in served(metrics)


def test_values_known_beforehand_begin_at_zero() -> None:
    """Else the first refused receipt is no rise to increase()."""
    assert 'gpupool_receipts_total{outcome="refused"} 0.0' in served(Metrics(version="1", process=False))


def test_a_total_is_absent_until_it_is_known_and_begins_anew_with_another_count() -> None:
    metrics = Metrics(version="1", process=False)
    metrics.earned.follow(None)
    assert "gpupool_earned_ton_total" not in served(metrics)
    metrics.earned.follow(2.5)
    metrics.earned.follow(4)
    assert "gpupool_earned_ton_total 4.0" in served(metrics)
    metrics.earned.follow(1)
    assert "gpupool_earned_ton_total 1.0" in served(metrics), "another address"
    metrics.windows_lost.inc()
    assert "gpupool_work_windows_lost_total 1.0" in served(metrics)


def test_peers_are_bounded_and_forgotten() -> None:
    metrics = Metrics(version="1", process=False)
    for i in range(PEERS_MAX + 5):
        metrics.peer_last_heard.set(f"{i:064x}", i)
    assert served(metrics).count("gpupool_peer_last_heard_timestamp_seconds{") == PEERS_MAX
    metrics.peer_last_heard.forget(f"{0:064x}")
    metrics.peer_last_heard.forget("never seen")
    metrics.peer_last_heard.set("new", 1)
    assert 'gpupool_peer_last_heard_timestamp_seconds{peer="new"} 1.0' in served(metrics)


def test_counts_serve_what_they_name_and_nothing_else() -> None:
    metrics = Metrics(version="1", process=False)
    metrics.evidence_refused.replace({"tcb_refused": 2, "quote_invalid": 1})
    metrics.evidence_refused.replace({"quote_invalid": 3})
    assert re.findall(r"gpupool_evidence_refused\{.*", served(metrics)) == [
        'gpupool_evidence_refused{code="quote_invalid"} 3.0'
    ]


def test_one_state_holds_at_a_time() -> None:
    metrics = Metrics(version="1", process=False)
    metrics.entry_state.set("active")
    metrics.entry_state.set("suspended")
    found = dict(re.findall(r'gpupool_entry_state\{state="(\w+)"\} (\S+)', served(metrics)))
    assert {state for state, value in found.items() if value == "1.0"} == {"suspended"}
    assert len(found) == 5
    with pytest.raises(ValueError, match="merry"):
        metrics.entry_state.set("merry")
    metrics.entry_state.set(None)
    assert "gpupool_entry_state{" not in served(metrics)


def test_a_state_needs_no_entry_of_the_catalogue() -> None:
    metric = Metric(
        topic=Topic.HOST, kind=Kind.STATE, name="mood", text="", use="", labels=(Label("mood", 2, ("calm", "cross")),)
    )
    registry = CollectorRegistry()
    State(metric, registry).set("calm")
    assert registry.get_sample_value("gpupool_mood", {"mood": "cross"}) == 0


def test_process_figures_are_served_on_request() -> None:
    assert "process_resident_memory_bytes" in served(Metrics(version="1"))
    assert "process_" not in served(Metrics(version="1", process=False))


def test_the_catalogue_is_printed_without_an_agent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "catalog"]) == 0
    text = capsys.readouterr().out
    assert main(["metrics", "catalog", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["metrics"]
    assert [each["name"] for each in listed] == [metric.full_name for metric in CATALOGUE.values()]
    assert all(each["name"] in text and each["help"] for each in listed)


def test_the_catalogue_keeps_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def widest() -> int:
        assert main(["metrics", "catalog"]) == 0
        return max(len(line) for line in capsys.readouterr().out.splitlines() if line.startswith("      "))

    monkeypatch.setenv("COLUMNS", "60")
    assert 60 < widest() <= 100
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert widest() <= 60
    monkeypatch.setenv("COLUMNS", "300")
    assert widest() <= 100, "wider is not easier to read"


def test_names_that_strangers_choose_make_few_series_however_long_it_runs() -> None:
    """Each time it is asked, a member calls itself something new."""
    versions = CATALOGUE["peers_by_version"]
    registry = CollectorRegistry()
    census, seen = Census(versions, registry), set[str]()
    for i in range(200):
        census.replace({"gpupool-agent/1": 3, f"gpupool-agent/9.{i}": 1})
        now = {sample.labels["version"]: sample.value for family in registry.collect() for sample in family.samples}
        assert sum(now.values()) == 4
        assert now["gpupool-agent/1"] == 3
        seen |= now.keys()
    assert len(seen) == versions.labels[0].values_max
    assert OTHER in seen
    census.replace({OTHER: 2, "gpupool-agent/9999": 1})
    assert registry.get_sample_value("gpupool_peers_by_version", {"version": OTHER}) == 3
