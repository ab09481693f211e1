"""The alert rules: unit-tested with promtool, all on metrics of the catalogue, each with a page to look at."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_run import RULES, hurried, missing_program

from agent.metrics.catalogue import CATALOGUE
from tests.prometheus.cases import CASES, QUIET, Case, Now, Rate, Value

TARGET = 'instance="gpu-1",job="gpupool-agent"'
GOOD_M = 90
SLACK_M = 3
NAMES = {metric.full_name for metric in CATALOGUE.values()} | {"up"}

needs_promtool = pytest.mark.skipif(missing_program() is not None, reason=str(missing_program()))


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def minutes(duration: str) -> int:
    """Of `2m`, `1h`, `1d`."""
    return int(duration[:-1]) * {"m": 1, "h": 60, "d": 1440}[duration[-1]]


def test_every_alert_is_tested() -> None:
    assert [case.alert for case in CASES] == [rule["alert"] for rule in rules()]


def test_alerts_are_labelled_and_explained() -> None:
    for rule in rules():
        name, notes = rule["alert"], rule["annotations"]
        assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"}), name
        assert notes.keys() == {"summary", "description", "runbook_url"}, name
        assert notes["runbook_url"] == "{{ $externalLabels.gpupool_docs }}docs/alerts.md#" + name.lower()
        assert "{{ $labels.instance }}" in notes["summary"] or name == "GpupoolAgentMissing", name
        assert notes["description"].endswith((".", "backup", "check")), name


def test_alerts_ask_for_metrics_of_the_catalogue_alone() -> None:
    for rule in rules():
        asked = set(re.findall(r"\b(?:gpupool|process|up)\w*", re.sub(r'"[^"]*"', "", rule["expr"])))
        assert asked, rule["alert"]
        assert asked <= NAMES, rule["alert"]


def test_rules_in_a_hurry_differ_in_times_alone() -> None:
    kept = [{"alert": "A", "expr": "increase(a[1h]) > 3600", "for": "1d"}, {"alert": "B", "expr": "b > 0"}]
    assert hurried({"groups": [{"name": "g", "rules": kept}]}, for_s=2, window_s=30)["groups"][0]["rules"] == [
        {"alert": "A", "expr": "increase(a[30s]) > 3600", "for": "2s"},
        {"alert": "B", "expr": "b > 0"},
    ]


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


@needs_promtool
@pytest.mark.slow
def test_alerts_fire_when_they_should_and_are_over_then(tmp_path: Path) -> None:
    assert promtool_test(tmp_path, [played(case) for case in CASES]) == ""


@needs_promtool
def test_alerts_are_silent_where_another_one_speaks_or_nothing_is_lost(tmp_path: Path) -> None:
    assert promtool_test(tmp_path, [played(case, fires=False) for case in QUIET]) == ""


@needs_promtool
def test_a_test_that_expects_too_much_fails(tmp_path: Path) -> None:
    """promtool looks at what it is given: what must not fire is not what fires."""
    found = promtool_test(tmp_path, [played(QUIET[0])])
    assert "GpupoolWalletLow" in found


@needs_promtool
def test_annotations_are_readable_and_lead_to_the_page(tmp_path: Path) -> None:
    """With a base for links, as the file's head says, and numbers as people write them."""
    test = {
        "name": "GpupoolChainStale",
        "interval": "1m",
        "external_labels": {"gpupool_docs": "https://forge.example/gpupool/"},
        "input_series": [
            {"series": f"gpupool_chain_head_timestamp_seconds{{{TARGET}}}", "values": "0x20"},
            {"series": f"gpupool_chain_up{{{TARGET}}}", "values": "1x20"},
        ],
        "alert_rule_test": [
            {
                "eval_time": "10m",
                "alertname": "GpupoolChainStale",
                "exp_alerts": [
                    {
                        "exp_labels": {"severity": "critical", "instance": "gpu-1", "job": "gpupool-agent"},
                        "exp_annotations": {
                            "summary": "gpu-1: the chain's newest block is old",
                            "description": "It is 10m 0s old: the chain stands, or the liteservers are behind.",
                            "runbook_url": "https://forge.example/gpupool/docs/alerts.md#gpupoolchainstale",
                        },
                    }
                ],
            }
        ],
    }
    assert promtool_test(tmp_path, [test]) == ""


def promtool_test(folder: Path, tests: list[dict[str, Any]]) -> str:
    """What promtool has to say of these tests, each on the rule that it is named after; nothing if all pass."""
    files = []
    for number, test in enumerate(tests):
        rule = next(rule for rule in rules() if rule["alert"] == test["name"])
        alone, file = folder / f"rule-{number}.yml", folder / f"test-{number}.yml"
        alone.write_text(json.dumps({"groups": [{"name": "alone", "rules": [rule]}]}))
        file.write_text(json.dumps({"rule_files": [alone.name], "evaluation_interval": "1m", "tests": [test]}))
        files.append(file)
    done = subprocess.run(["promtool", "test", "rules", *files], capture_output=True, check=False)
    return "" if done.returncode == 0 else done.stdout.decode() + done.stderr.decode()


def played(case: Case, *, fires: bool = True) -> dict[str, Any]:
    """A case as promtool plays it."""
    rule = next(rule for rule in rules() if rule["alert"] == case.alert)
    for_m = minutes(rule.get("for", "0m"))
    bad_m = for_m + case.window_m + SLACK_M
    end_m = GOOD_M + bad_m + case.window_m + SLACK_M
    phases = [case.good] * GOOD_M + [case.bad] * bad_m + [case.good] * (end_m - GOOD_M - bad_m)
    series = {name: [phase.get(name) for phase in phases] for name in (*case.good, *case.bad)}
    series |= {name: [value] * end_m for name, value in (case.always or {}).items()}
    quiet_m = [GOOD_M - 1, end_m - 1]
    if for_m > 1 and not case.window_m:
        quiet_m.append(GOOD_M + for_m - 1)
    firing = f'count(ALERTS{{alertname="{case.alert}", alertstate="firing"}})'
    expected: list[dict[str, Any]] = [{"expr": firing, "eval_time": f"{at}m", "exp_samples": []} for at in quiet_m]
    one = [{"labels": "{}", "value": 1}] if fires else []
    expected.append({"expr": firing, "eval_time": f"{GOOD_M + bad_m - 1}m", "exp_samples": one})
    return {
        "interval": "1m",
        "name": case.alert,
        "input_series": [
            {"series": _with_target(name), "values": " ".join(map(_text, _numbers(values)))}
            for name, values in series.items()
        ],
        "promql_expr_test": expected,
    }


def _with_target(series: str) -> str:
    name, _, labels = series.rstrip("}").partition("{")
    return f"{name}{{{labels}{',' if labels else ''}{TARGET}}}"


def _numbers(values: list[Value]) -> list[float | None]:
    """Minute by minute; counters go on from where they were."""
    found: list[float | None] = []
    total = 0.0
    for minute, value in enumerate(values):
        if isinstance(value, Rate):
            total += value.per_minute
            found.append(total)
        elif isinstance(value, Now):
            found.append(60 * minute + value.offset_s)
        else:
            found.append(value)
    return found


def _text(number: float | None) -> str:
    return "_" if number is None else f"{number:.10g}"
