"""What each verb of `gpupool metrics` does."""

from __future__ import annotations

import argparse
import textwrap
from itertools import groupby

from agent.metrics.catalogue import CATALOGUE
from agent.metrics.metric import Metric
from agent.output import answer

_WIDTH = 100


def catalog(options: argparse.Namespace) -> int:
    """Print the catalogue."""
    return answer(options, {"metrics": [metric.value() for metric in CATALOGUE.values()]}, _text())


def _text() -> str:
    topics = groupby(CATALOGUE.values(), key=lambda metric: metric.topic)
    return "\n\n".join(f"{topic.upper()}\n" + "\n".join(map(_entry, metrics)) for topic, metrics in topics)


def _entry(metric: Metric) -> str:
    labels = ", ".join(label.name for label in metric.labels)
    name = f"{metric.full_name}{{{labels}}}" if labels else metric.full_name
    lines = textwrap.wrap(f"{metric.text.rstrip('.')}. {metric.use}", _WIDTH - 6)
    return "\n      ".join([f"  {name}  {metric.kind}", *lines])
