"""What each verb of `gpupool metrics` does."""

from __future__ import annotations

import argparse
import textwrap
from itertools import groupby

from agent.metrics.catalogue import CATALOGUE
from agent.metrics.metric import Metric
from agent.output import answer, terminal_columns

_WIDTH_MAX = 100
_INDENT = " " * 6


def catalog(options: argparse.Namespace) -> int:
    """Print the catalogue."""
    return answer(options, {"metrics": [metric.value() for metric in CATALOGUE.values()]}, _text())


def _text() -> str:
    topics = groupby(CATALOGUE.values(), key=lambda metric: metric.topic)
    width = terminal_columns() or _WIDTH_MAX
    return "\n\n".join(
        f"{topic.upper()}\n" + "\n".join(_entry(metric, width) for metric in metrics) for topic, metrics in topics
    )


def _entry(metric: Metric, width: int) -> str:
    labels = ", ".join(label.name for label in metric.labels)
    name = f"{metric.full_name}{{{labels}}}" if labels else metric.full_name
    text = f"{metric.text.rstrip('.')}. {metric.use}"
    lines = textwrap.wrap(text, min(width, _WIDTH_MAX), initial_indent=_INDENT, subsequent_indent=_INDENT)
    return "\n".join([f"  {name}  {metric.kind}", *lines])
