"""Writes `packaging/grafana/gpupool-agent.json` from the catalogue of metrics.

    python -m tests.prometheus.tools.dashboard

Hosts at a glance come first, then a row for each topic of the catalogue. How a metric is drawn follows from its entry:
a counter as its rate, a time as its age, a state by its names, with the unit that the name ends in, and the entry's
texts as the panel's description. A test compares the file, and that no metric is left out.

Source: Grafana documentation, "Dashboard JSON model", schema 39 (Grafana 11); older ones from 9 on read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.metrics.catalogue import CATALOGUE
from agent.metrics.metric import Kind, Metric, Topic
from tests.prometheus.tools.panels import COLUMNS, PANELS, TOTALS, VERSIONS, Glance, asked

FILE = Path(__file__).parents[3] / "packaging" / "grafana" / "gpupool-agent.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, PANEL_WIDTH, PANEL_HEIGHT = 24, 8, 7


UNITS = {"seconds": "s", "bytes": "bytes", "ton": "suffix: TON", "ratio": "percentunit", "": "short"}
AHEAD = {"evidence_valid_until_timestamp_seconds", "epoch_end_timestamp_seconds"}
"""Times to come: shown is how long until then."""
TITLES = {
    Topic.EARNINGS: "Earnings",
    Topic.WORK: "Work",
    Topic.EVIDENCE: "Evidence",
    Topic.PEERS: "Peers",
    Topic.SETTLEMENT: "Settlement",
    Topic.CHAIN: "Chain",
    Topic.HOST: "Process and host",
}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels = [*_at_a_glance()]
    at = 22
    for topic, title in TITLES.items():
        inside = [_graph(name, metrics) for name, metrics in PANELS.items() if CATALOGUE[metrics[0]].topic is topic]
        row = _placed(
            {"type": "row", "title": title, "collapsed": topic is not Topic.EARNINGS, "panels": []}, 0, at, WIDTH, 1
        )
        at += 1
        for number, panel in enumerate(inside):
            column, line = number % (WIDTH // PANEL_WIDTH), number // (WIDTH // PANEL_WIDTH)
            _placed(panel, column * PANEL_WIDTH, at + line * PANEL_HEIGHT, PANEL_WIDTH, PANEL_HEIGHT)
        if row["collapsed"]:
            row["panels"] = inside
            panels.append(row)
        else:
            panels += [row, *inside]
            at += -(-len(inside) // (WIDTH // PANEL_WIDTH)) * PANEL_HEIGHT
    return _numbered({**_FRAME, "panels": panels})


def queries(value: Any) -> Iterator[str]:
    """Every query of a dashboard."""
    if isinstance(value, dict):
        if "expr" in value:
            yield value["expr"]
        for each in value.values():
            yield from queries(each)
    elif isinstance(value, list):
        for each in value:
            yield from queries(each)


def _at_a_glance() -> Iterator[dict[str, Any]]:
    for number, total in enumerate(TOTALS):
        panel = {
            "type": "stat",
            "title": total.title,
            "datasource": SOURCE,
            "targets": [_target("A", total.expr, "", instant=True)],
            "fieldConfig": {"defaults": {"unit": total.unit, **_thresholds(total)}, "overrides": []},
            "options": {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}},
        }
        yield _placed(panel, number * 4, 0, 4, 4)
    yield _placed(_table_of_hosts(), 0, 4, WIDTH, 10)
    alerts = {
        "type": "table",
        "title": "Alerts that fire",
        "description": "docs/alerts.md says what each means and what helps.",
        "datasource": SOURCE,
        "targets": [
            _target(
                "A",
                'max by (instance, alertname, severity) (ALERTS{alertstate="firing",alertname=~"Gpupool.*",'
                'instance=~"$instance|"})',
                "",
                instant=True,
            )
        ],
        "fieldConfig": {"defaults": {}, "overrides": []},
        "transformations": [_organized({"Time": True, "Value": True}, {})],
    }
    yield _placed(alerts, 0, 14, WIDTH, 8)


def _table_of_hosts() -> dict[str, Any]:
    """One line a host; columns are joined by the name of the host."""
    letters = [chr(ord("A") + number) for number in range(len(COLUMNS))]
    targets = [
        _target(letter, f"max by (instance) ({column.expr})", "", instant=True)
        for letter, column in zip(letters, COLUMNS, strict=True)
    ]
    targets.append(_target("Z", VERSIONS, "", instant=True))
    names = {f"Value #{letter}": column.title for letter, column in zip(letters, COLUMNS, strict=True)}
    hidden = {"Time": True, "Value #Z": True}
    overrides = [
        {
            "matcher": {"id": "byName", "options": column.title},
            "properties": [
                {"id": "unit", "value": column.unit},
                *(
                    [
                        {"id": "thresholds", "value": _thresholds(column)["thresholds"]},
                        {"id": "custom.cellOptions", "value": {"type": "color-text"}},
                    ]
                    if _has_limit(column)
                    else []
                ),
            ],
        }
        for column in COLUMNS
    ]
    return {
        "type": "table",
        "title": "Hosts",
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {}, "overrides": overrides},
        "transformations": [
            {"id": "merge", "options": {}},
            _organized(hidden, {**names, "instance": "Host", "version": "Version"}),
        ],
    }


def _graph(title: str, names: tuple[str, ...]) -> dict[str, Any]:
    metrics = [CATALOGUE[name] for name in names]
    drawn = metrics[0]
    unit = "s" if drawn.is_timestamp else UNITS[drawn.unit]
    if drawn.kind is Kind.COUNTER and drawn.unit != "ton":
        unit = {"seconds": "percentunit"}.get(drawn.unit, "suffix: /s")
    return {
        "type": "timeseries",
        "title": title,
        "description": "\n\n".join(
            f"`{metric.full_name}`: {metric.text.rstrip('.')}. {metric.use}" for metric in metrics
        ),
        "datasource": SOURCE,
        "targets": [
            _target(chr(ord("A") + number), _drawn(metric), _legend(metric, many=len(metrics) > 1))
            for number, metric in enumerate(metrics)
        ],
        "fieldConfig": {
            "defaults": {"unit": unit, "custom": {"fillOpacity": 5, "showPoints": "never", "spanNulls": False}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def _drawn(metric: Metric) -> str:
    """The query of a metric, by what it is."""
    query = asked(metric.name)
    if metric.name in AHEAD:
        return f"{query} - time()"
    if metric.is_timestamp:
        return f"time() - {query}"
    if metric.kind is Kind.STATE:
        return f"{query} == 1"
    if metric.kind is Kind.COUNTER:
        return query if metric.unit == "ton" else f"rate({query}[$__rate_interval])"
    return query


def _legend(metric: Metric, *, many: bool) -> str:
    labels = " ".join(f"{{{{{label.name}}}}}" for label in metric.labels)
    name = metric.name.removesuffix("_total") if many else ""
    return " ".join(each for each in ("{{instance}}", name, labels) if each)


def _target(letter: str, expr: str, legend: str, *, instant: bool = False) -> dict[str, Any]:
    target = {"refId": letter, "datasource": SOURCE, "expr": expr}
    if instant:
        return {**target, "instant": True, "range": False, "format": "table"}
    return {**target, "legendFormat": legend}


def _thresholds(glance: Glance) -> dict[str, Any]:
    """Green and red: red from the limit on, or up to it."""
    first, then, limit = (
        ("red", "green", glance.bad_below)
        if glance.bad_below is not None
        else (
            "green",
            "red",
            glance.bad_above,
        )
    )
    steps: list[dict[str, Any]] = [{"color": first if limit is not None else "text", "value": None}]
    if limit is not None:
        steps.append({"color": then, "value": limit})
    return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}


def _has_limit(glance: Glance) -> bool:
    return glance.bad_above is not None or glance.bad_below is not None


def _organized(hidden: dict[str, bool], names: dict[str, str]) -> dict[str, Any]:
    return {"id": "organize", "options": {"excludeByName": hidden, "renameByName": names}}


def _placed(panel: dict[str, Any], x: int, y: int, width: int, height: int) -> dict[str, Any]:
    panel["gridPos"] = {"x": x, "y": y, "w": width, "h": height}
    return panel


def _numbered(frame: dict[str, Any]) -> dict[str, Any]:
    """Every panel with a number of its own."""
    every = [each for panel in frame["panels"] for each in (panel, *panel.get("panels", ()))]
    for number, panel in enumerate(every, start=1):
        panel["id"] = number
    return frame


_FRAME: dict[str, Any] = {
    "uid": "gpupool-agent",
    "title": "gpupool agents",
    "description": "Hosts of a compute pool: what they earn, and what keeps them from it.",
    "tags": ["gpupool"],
    "schemaVersion": 39,
    "version": 1,
    "editable": True,
    "graphTooltip": 1,
    "refresh": "30s",
    "time": {"from": "now-24h", "to": "now"},
    "timezone": "browser",
    "links": [],
    "annotations": {"list": []},
    "templating": {
        "list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
            {
                "name": "instance",
                "label": "Host",
                "type": "query",
                "datasource": SOURCE,
                "query": {"query": 'label_values(up{job="gpupool-agent"}, instance)', "refId": "instance"},
                "definition": 'label_values(up{job="gpupool-agent"}, instance)',
                "refresh": 2,
                "sort": 1,
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"text": "All", "value": "$__all"},
            },
        ]
    },
}


def text() -> str:
    """As it stands in the file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text())
