"""Writes the generated parts of `docs/metrics.md` and `docs/alerts.md`: `python -m tests.prometheus.tools.pages`.

Metrics come from the catalogue, alerts from the rules, the doctor's codes beside them from `tests.prometheus.coverage`.
A test compares the pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from agent.doctor.diagnosis import CHECKS
from agent.metrics.catalogue import CATALOGUE
from agent.metrics.metric import Metric
from tests.prometheus.coverage import COVERED

ROOT = Path(__file__).parents[3]
METRICS_PAGE, ALERTS_PAGE = ROOT / "docs" / "metrics.md", ROOT / "docs" / "alerts.md"
RULES = ROOT / "packaging" / "prometheus" / "gpupool.rules.yml"
_PLACE = re.compile(r"(<!-- ([a-z]+): generated[^\n]*-->\n).*?(<!-- end of \2 -->)", re.DOTALL)


def written(page: str) -> str:
    """The page with its generated parts in their places."""
    parts = {"catalogue": catalogue, "alerts": alerts, "codes": codes}
    return _PLACE.sub(lambda found: f"{found[1]}{parts[found[2]]()}{found[3]}", page)


def catalogue() -> str:
    """A table for each topic."""
    topics = groupby(CATALOGUE.values(), key=lambda metric: metric.topic)
    return "".join(f"\n## {topic.capitalize()}\n\n{_table(list(metrics))}" for topic, metrics in topics) + "\n"


def _table(metrics: list[Metric]) -> str:
    rows = ["| metric | kind | labels | says | what to do with it |", "|---|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label.name}`{_bound(label.values, label.values_max)}" for label in metric.labels)
        says = metric.text.rstrip(".")
        rows.append(f"| `{metric.full_name}` | {metric.kind} | {labels} | {says} | {metric.use} |")
    return "\n".join(rows) + "\n"


def _bound(values: tuple[str, ...], values_max: int) -> str:
    if len(values) == values_max:
        return f": {', '.join(values)}"
    return f" (at most {values_max})" if values_max > 1 else ""


def alerts() -> str:
    """A section for each alert, group by group."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return "".join(_group(group) for group in groups) + "\n"


def _group(group: dict[str, Any]) -> str:
    title = group["name"].removeprefix("gpupool-").capitalize()
    return f"\n## {title}\n" + "".join(_alert(rule) for rule in group["rules"])


def _alert(rule: dict[str, Any]) -> str:
    name, notes = rule["alert"], rule["annotations"]
    summary = _plain(notes["summary"]).removeprefix("HOST: ")
    codes = [f"`{code}`" for code, found in COVERED.items() if not isinstance(found, str) and name in found]
    lines = [
        f"\n### {name}\n",
        f"*{rule['labels']['severity']}*, {_how_long(rule)}. {summary[:1].upper()}{summary[1:]}. "
        f"{_plain(notes['description'])}\n",
        f"```\n{rule['expr'].strip()}\n```\n",
        *(f"* `{metric.full_name}`: {metric.text.rstrip('.')}. {metric.use}" for metric in _metrics(rule["expr"])),
    ]
    if codes:
        lines.append(f"* The doctor says which it is: {', '.join(codes)}.")
    return "\n".join(lines).rstrip() + "\n"


def _how_long(rule: dict[str, Any]) -> str:
    return f"once it holds for {rule['for']}" if "for" in rule else "at once"


def _plain(text: str) -> str:
    """An annotation without its templates."""
    text = text.replace("{{ $labels.instance }}", "HOST").replace("{{ $labels.source }}", "SOURCE")
    return re.sub(r"\{\{ \$(?:value|labels\.\w+)[^}]*\}\}", "*x*", text)


def _metrics(expr: str) -> Iterator[Metric]:
    """Those of the catalogue that a query asks for, as they come."""
    by_name = {metric.full_name: metric for metric in CATALOGUE.values()}
    for name in dict.fromkeys(re.findall(r"\b(?:gpupool|process)_\w+", expr)):
        yield by_name[name]


def codes() -> str:
    """What speaks for each of the doctor's codes."""
    rows = ["| the doctor's code | severity | alerts |", "|---|---|---|"]
    for check in CHECKS:
        found = COVERED[check.code]
        told = f"none: {found}" if isinstance(found, str) else ", ".join(f"[{a}](#{a.lower()})" for a in found)
        rows.append(f"| `{check.code}` | {check.severity} | {told} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    for page in (METRICS_PAGE, ALERTS_PAGE):
        page.write_text(written(page.read_text()))
