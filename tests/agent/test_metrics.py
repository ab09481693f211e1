"""The catalogue of metrics: names by the rules, labels within bounds."""

import re

from prometheus_client import generate_latest

from agent.metrics import OTHER, PEERS_MAX, REASONS_MAX, LateGauge, Metrics


def served(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_names_follow_the_rules() -> None:
    metrics = Metrics(version="1.2.3", process=False)
    for attribute in vars(metrics).values():
        if isinstance(attribute, LateGauge):
            attribute.set(1)
    families = re.findall(r"^# TYPE (\S+) (\S+)$", served(metrics), re.MULTILINE)
    assert len(families) > 20
    for name, kind in families:
        assert name.startswith("gpupool_")
        assert (kind == "counter") == name.endswith("_total")
        assert not re.search(r"_(ms|millis|minutes|kb|percent)\b", name)
    assert 'gpupool_build_info{version="1.2.3"} 1.0' in served(metrics)


def test_gauge_is_absent_until_it_is_known() -> None:
    metrics = Metrics(version="1", process=False)
    assert "settled_epoch" not in served(metrics)
    metrics.settled_epoch.set(0)
    metrics.settled_epoch.set(4)
    assert "gpupool_settled_epoch 4.0" in served(metrics)


def test_reasons_are_bounded() -> None:
    metrics = Metrics(version="1", process=False)
    for i in range(REASONS_MAX + 5):
        metrics.dropped.inc(f"reason {i}", 2)
    metrics.dropped.inc("reason 0")
    text = served(metrics)
    assert 'gpupool_dropped_total{reason="reason 0"} 3.0' in text
    assert f'gpupool_dropped_total{{reason="{OTHER}"}} 10.0' in text
    assert text.count("gpupool_dropped_total{") == REASONS_MAX + 1


def test_counter_follows_totals_kept_elsewhere() -> None:
    metrics = Metrics(version="1", process=False)
    metrics.dropped.follow({"garbage": 3})
    metrics.dropped.follow({"garbage": 5, "forged": 1})
    assert 'gpupool_dropped_total{reason="garbage"} 5.0' in served(metrics)
    assert 'gpupool_dropped_total{reason="forged"} 1.0' in served(metrics)


def test_peers_are_bounded_and_forgotten() -> None:
    metrics = Metrics(version="1", process=False)
    for i in range(PEERS_MAX + 5):
        metrics.peer_last_heard.set(f"{i:064x}", i)
    assert served(metrics).count("gpupool_peer_last_heard_timestamp_seconds{") == PEERS_MAX
    metrics.peer_last_heard.forget(f"{0:064x}")
    metrics.peer_last_heard.forget("never seen")
    metrics.peer_last_heard.set("new", 1)
    assert 'gpupool_peer_last_heard_timestamp_seconds{peer="new"} 1.0' in served(metrics)


def test_process_figures_are_served_on_request() -> None:
    assert "process_resident_memory_bytes" in served(Metrics(version="1"))
