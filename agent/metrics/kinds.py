"""The objects behind the catalogue's entries: what they serve, and that they serve no more than their bounds.

Label values may come from peers (a reason, a node key). A counter's value beyond the bound is counted as `other`, for
nothing that is counted may get lost; a gauge's is not kept.

1. What is not known yet is absent, not zero: it appears when it is first set, and goes when it is not known any more.
2. Values of labels that are known beforehand are served from the start, a counter's as zero: else a rise from nothing
   to one is no rise to `increase()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from agent.metrics.metric import NAMESPACE, Metric

OTHER = "other"
_T = TypeVar("_T", Counter, Gauge)

Values = str | tuple[str, ...]
"""Of one label, or of several together."""
_V = TypeVar("_V", bound=Values)


class LateGauge:
    """A gauge without labels (rule 1)."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._gauge = Gauge(metric.name, metric.text, namespace=NAMESPACE, registry=None)
        self._registry = registry
        self._served = False

    def set(self, number: float | None) -> None:
        """Set the gauge; None: it is not known."""
        if number is not None:
            self._gauge.set(number)
        self._serve(number is not None)

    def ask(self, function: Callable[[], float]) -> None:
        """From now on serve what this function, which must not raise, gives when it is asked."""
        self._gauge.set_function(function)
        self._serve(True)

    def _serve(self, is_known: bool) -> None:
        if is_known and not self._served:
            self._registry.register(self._gauge)
        elif self._served and not is_known:
            self._registry.unregister(self._gauge)
        self._served = is_known


class LateCounter:
    """A counter without labels (rule 1)."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._counter = Counter(metric.name, metric.text, namespace=NAMESPACE, registry=None)
        self._registry = registry
        self._total: float | None = None

    def inc(self, amount: float = 1) -> None:
        """Add `amount` (>= 0)."""
        self.follow((self._total or 0) + amount)

    def follow(self, total: float | None) -> None:
        """Bring it to a total that something else keeps; a smaller one is another count, which begins anew."""
        if total is None:
            return
        if self._total is None:
            self._registry.register(self._counter)
        elif total < self._total:
            self._counter.reset()
        self._counter.inc(total - (0 if self._total is None or total < self._total else self._total))
        self._total = total


class BoundedCounter:
    """A counter with labels, of bounded values; further ones count as `other`."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._counter = _with_labels(Counter, metric, registry)
        self._width = len(metric.labels)
        self._values_max = _values_max(metric)
        self._values = _known(metric)
        self._totals: dict[str, int] = {}
        for values in self._values:  # rule 2
            self._counter.labels(*values)

    def inc(self, value: Values, amount: float = 1) -> None:
        """Add `amount` (>= 0) under this value."""
        self._counter.labels(*self._bounded(_tuple(value))).inc(amount)

    def follow(self, totals: Mapping[str, int]) -> None:
        """Bring it to running totals that something else keeps; they never decrease."""
        for value, total in totals.items():
            self.inc(value, total - self._totals.get(value, 0))
        self._totals.update(totals)

    def _bounded(self, values: tuple[str, ...]) -> tuple[str, ...]:
        if values not in self._values and len(self._values) >= self._values_max:
            return (OTHER,) * self._width
        self._values.add(values)
        return values


class BoundedGauge:
    """A gauge with labels, of bounded values; further ones are not kept."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._gauge = _with_labels(Gauge, metric, registry)
        self._values_max = _values_max(metric)
        self._values: set[tuple[str, ...]] = set()

    def set(self, value: Values, number: float) -> None:
        """Set it under this value."""
        values = _tuple(value)
        if values in self._values or len(self._values) < self._values_max:
            self._values.add(values)
            self._gauge.labels(*values).set(number)

    def forget(self, value: Values) -> None:
        """Serve this value no longer."""
        values = _tuple(value)
        if values in self._values:
            self._values.remove(values)
            self._gauge.remove(*values)

    def replace(self, numbers: Mapping[_V, float]) -> None:
        """Serve these and no others."""
        wanted = {_tuple(value): number for value, number in numbers.items()}
        for values in self._values - wanted.keys():
            self.forget(values)
        for values, number in wanted.items():
            self.set(values, number)


class Census:
    """A gauge of how many are of which name, where names are strangers' words.

    The first so many that ever came have a series, over the life of the process; all others together are `other`.
    """

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._gauge = BoundedGauge(metric, registry)
        self._names_max = _values_max(metric) - 1
        self._names: set[str] = set()

    def replace(self, numbers: Mapping[str, int]) -> None:
        """Serve these and no others; of new names the first ones of the mapping come first."""
        bounded: dict[str, int] = {}
        for name, number in numbers.items():
            if name != OTHER and len(self._names) < self._names_max:
                self._names.add(name)
            served = name if name in self._names else OTHER
            bounded[served] = bounded.get(served, 0) + number
        self._gauge.replace(bounded)


class State:
    """A series for each state: 1 for the one that holds, 0 for the others; none while no state is known."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._gauge = BoundedGauge(metric, registry)
        self._states = metric.labels[0].values

    def set(self, state: str | None) -> None:
        """Say which state holds; None: none is known.

        Raises:
            ValueError: the catalogue has no such state.
        """
        if state is not None and state not in self._states:
            raise ValueError(f"{state}: no state of {', '.join(self._states)}")
        self._gauge.replace({} if state is None else {each: each == state for each in self._states})


class Facts:
    """A gauge that is 1; its labels say something, which may change."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._gauge = BoundedGauge(metric, registry)
        self._names = [label.name for label in metric.labels]

    def set(self, values: Mapping[str, str] | None) -> None:
        """Say this, by label, and nothing else; None: nothing is known."""
        self._gauge.replace({} if values is None else {tuple(values[name] for name in self._names): 1})


def _with_labels(kind: type[_T], metric: Metric, registry: CollectorRegistry) -> _T:
    names = [label.name for label in metric.labels]
    return kind(metric.name, metric.text, names, namespace=NAMESPACE, registry=registry)


def _values_max(metric: Metric) -> int:
    """How many series the metric may have: the bounds of its labels that are known beforehand add none of their own."""
    return max(label.values_max for label in metric.labels)


def _known(metric: Metric) -> set[tuple[str, ...]]:
    return {(value,) for value in metric.labels[0].values} if len(metric.labels) == 1 else set()


def _tuple(value: Values) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
