"""The one catalogue of the agent's metrics: every name, unit and label stands here.

Decides what an operator can see and alarm on. Labels may come from peers (a reason, a node key), so their
number is bounded: a value beyond the bound is counted as `other`.

1. Base units (seconds, bytes), counters end in `_total`, times are Unix timestamps.
2. A gauge that is not known yet is absent, not zero; it appears when it is first set.
3. The registry is the agent's own: nothing that a library registers globally is served.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

NAMESPACE = "gpupool"
REASONS_MAX = 64
PEERS_MAX = 1024
SOURCE_READINGS_MAX = 1024
"""Sixteen GPUs show some thirty readings each."""
OTHER = "other"

# A second series per counter that nobody here asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class BoundedCounter:
    """A counter with one label of at most `values_max` values; further ones count as `other`."""

    def __init__(self, counter: Counter, values_max: int) -> None:
        self._counter = counter
        self._values_max = values_max
        self._values: set[str] = set()
        self._totals: dict[str, int] = {}

    def inc(self, value: str, amount: int = 1) -> None:
        """Add `amount` (>= 0) under the label `value`."""
        self._counter.labels(self._bounded(value)).inc(amount)

    def follow(self, totals: Mapping[str, int]) -> None:
        """Bring the counter to running totals that something else keeps; they never decrease."""
        for value, total in totals.items():
            self.inc(value, total - self._totals.get(value, 0))
        self._totals.update(totals)

    def _bounded(self, value: str) -> str:
        if value not in self._values and len(self._values) >= self._values_max:
            return OTHER
        self._values.add(value)
        return value


class BoundedGauge:
    """A gauge with at most `values_max` values of its label, or of its labels together; further ones are not kept."""

    def __init__(self, gauge: Gauge, values_max: int) -> None:
        self._gauge = gauge
        self._values_max = values_max
        self._values: set[tuple[str, ...]] = set()

    def set(self, value: str | tuple[str, ...], number: float) -> None:
        """Set the gauge under the label `value`."""
        values = (value,) if isinstance(value, str) else value
        if values in self._values or len(self._values) < self._values_max:
            self._values.add(values)
            self._gauge.labels(*values).set(number)

    def forget(self, value: str | tuple[str, ...]) -> None:
        """Serve this label no longer."""
        values = (value,) if isinstance(value, str) else value
        if values in self._values:
            self._values.remove(values)
            self._gauge.remove(*values)


class Counts:
    """A gauge with one label, set from a whole count; labels that it does not name are served no longer."""

    def __init__(self, gauge: Gauge, values_max: int) -> None:
        self._gauge = BoundedGauge(gauge, values_max)
        self._served: frozenset[str] = frozenset()

    def set(self, counts: Mapping[str, int]) -> None:
        """Serve these counts and no others."""
        for value in self._served - counts.keys():
            self._gauge.forget(value)
        for value, count in counts.items():
            self._gauge.set(value, count)
        self._served = frozenset(counts)


class LateGauge:
    """A gauge that is served from its first `set` on (rule 2)."""

    def __init__(self, name: str, text: str, registry: CollectorRegistry) -> None:
        self._gauge = Gauge(name, text, namespace=NAMESPACE, registry=None)
        self._registry = registry
        self._served = False

    def set(self, number: float) -> None:
        """Set the gauge."""
        self._gauge.set(number)
        if not self._served:
            self._served = True
            self._registry.register(self._gauge)


class Metrics:
    """Every metric as an attribute; `registry` is what the web listener serves."""

    def __init__(self, *, version: str, process: bool = True) -> None:
        """`process`: also serve memory, CPU and descriptors of this process."""
        self.registry = CollectorRegistry()
        if process:
            ProcessCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        self._build = Info("build", "Which agent this is", namespace=NAMESPACE, registry=self.registry)
        self._build.info({"version": version})

        self._of_peers()
        self._of_records()
        self._of_work()
        self._of_the_pool()

    def _of_peers(self) -> None:
        """What this node hears of others."""
        self.dropped = self._bounded_counter("dropped", "What was refused, by reason", "reason", REASONS_MAX)
        self.transport_events = self._bounded_counter(
            "transport_events", "What the transport counts: dials, duplicates, limits, by name", "event", REASONS_MAX
        )
        self.peers = self._gauge("peers", "Connected peers")
        self.reachable_weight = self._gauge(
            "reachable_weight", "Weight of the operators that are connected, this node included"
        )
        self.operators_weight = self._gauge("operators_weight", "Weight of all operators")
        self.peer_last_heard = self._bounded_gauge(
            "peer_last_heard_timestamp_seconds", "When a roster peer was last heard", "peer", PEERS_MAX
        )

    def _of_records(self) -> None:
        """What it holds of theirs and of its own."""
        self.records = self._bounded_counter(
            "records", "Verified records of peers, by where they stood in their logs", "placement", REASONS_MAX
        )
        self.windows_waiting = self._gauge("work_windows_waiting", "Closed work windows that are no records yet")
        self.evidence_refused = self._counts(
            "evidence_refused", "Participants whose evidence is refused or ran out, by error code", "code"
        )
        self.evidence_held = self._gauge(
            "evidence_held", "Participants whose evidence is in force, this node's own too"
        )
        self.log_head = self._gauge("log_head_seq", "Sequence number of the own log's last record")

    def _of_work(self) -> None:
        """What it measures and proves."""
        self.evidence_valid_until = self._gauge(
            "evidence_valid_until_timestamp_seconds", "Until when the own evidence in force holds"
        )
        self.evidence_failing = self._gauge("evidence_failing", "1 while no new own evidence can be made")
        self.place_taken = self._gauge("machine_place_taken", "1 while another node holds the place on this machine")
        self.measured = self._bounded_counter("work_measured", "Work measured, by unit", "unit", REASONS_MAX)
        self.gap_seconds = self._bounded_counter(
            "gap_seconds", "Seconds in which a source was not watched", "source", REASONS_MAX
        )
        self.source_errors = self._bounded_counter(
            "source_errors", "Readings of the source that failed, by reason", "reason", REASONS_MAX
        )
        self.receipts = self._bounded_counter("receipts", "Receipts that were handed in, by outcome", "outcome", 8)
        self.source_reading = BoundedGauge(
            Gauge(
                "source_reading",
                "What a source shows now, by source and name; never counted",
                ("source", "reading"),
                namespace=NAMESPACE,
                registry=self.registry,
            ),
            SOURCE_READINGS_MAX,
        )
        self.work_disagreement = self._gauge(
            "work_disagreement_ratio", "How far own counters, receipts and the chain are apart, as a share of the most"
        )

    def _of_the_pool(self) -> None:
        """What the chain shows, and what is asked of it."""
        self.epoch = self._gauge("epoch", "Epoch that runs now")
        self.view = self._gauge("view", "View of the epoch being closed")
        self.attested_weight = self._gauge("attested_weight", "Weight behind the leading certificate hash")
        self.quorum_weight = self._gauge("quorum_weight", "Weight that a certificate needs")
        self.certificate_lag = self._gauge(
            "certificate_lag_seconds", "From the end of the last settled epoch to its landing"
        )
        self.close_step = self._bounded_gauge(
            "close_step_seconds", "From the end of the epoch closed last to each step, as this node saw it", "step", 8
        )
        self.settled_epoch = self._gauge("settled_epoch", "Last epoch settled on chain")
        self.settled_time = self._gauge("settled_timestamp_seconds", "When that epoch landed")
        self.pool_paused = self._gauge("pool_paused", "1 while the pool is paused and settles nothing")
        self.policies_missing = self._gauge(
            "policies_missing", "Policy documents that the pool counts by, or soon will, and that are not here"
        )
        self.earning = self._gauge("earning", "1 while the own registry entry lets work earn")
        self.stake = self._gauge("stake_ton", "Own stake, what is asked back included")
        self.slashed_held = self._gauge("slashed_held_ton", "Slashed of the own stake, still open to appeal")
        self.chain_head_time = self._gauge("chain_head_timestamp_seconds", "Time of the latest masterchain block seen")
        self.sent = Counter(
            "chain_actions",
            "What the chain was asked for in this node's turn, by action and outcome",
            ("action", "outcome"),
            namespace=NAMESPACE,
            registry=self.registry,
        )
        self.chain_errors = self._bounded_counter(
            "chain_errors", "Looks at the chain that failed", "reason", REASONS_MAX
        )
        self.wallet_balance = self._gauge("wallet_balance_ton", "What the wallet holds for fees")
        self.loop_advanced = self._bounded_gauge(
            "loop_last_advance_timestamp_seconds", "When a service loop last got something done", "loop", 16
        )

    def _gauge(self, name: str, text: str) -> LateGauge:
        return LateGauge(name, text, self.registry)

    def _counts(self, name: str, text: str, label: str) -> Counts:
        return Counts(Gauge(name, text, (label,), namespace=NAMESPACE, registry=self.registry), REASONS_MAX)

    def _bounded_gauge(self, name: str, text: str, label: str, values_max: int) -> BoundedGauge:
        gauge = Gauge(name, text, (label,), namespace=NAMESPACE, registry=self.registry)
        return BoundedGauge(gauge, values_max)

    def _bounded_counter(self, name: str, text: str, label: str, values_max: int) -> BoundedCounter:
        counter = Counter(name, text, (label,), namespace=NAMESPACE, registry=self.registry)
        return BoundedCounter(counter, values_max)
