"""The one catalogue of the agent's metrics: nothing is served that does not stand here.

`Metrics` (`agent.metrics.registry`) makes its objects of these entries; `gpupool metrics catalog`, docs/metrics.md and
the Grafana dashboard are written from them, and alert rules are checked against them.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.metrics.host_entries import HOST_ENTRIES
from agent.metrics.metric import Metric, Topic
from agent.metrics.pool_entries import POOL_ENTRIES

_ORDER = list(Topic)
CATALOGUE: Mapping[str, Metric] = {
    metric.name: metric
    for metric in sorted((*POOL_ENTRIES, *HOST_ENTRIES), key=lambda metric: _ORDER.index(metric.topic))
}
"""By name without namespace, topic by topic."""
