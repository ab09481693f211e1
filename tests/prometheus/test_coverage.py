"""Everything that the doctor calls a problem has an alert; pages and dashboard are what their generators make."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_run import RULES, missing_program

from agent.doctor.diagnosis import CHECKS
from agent.doctor.findings import Severity
from agent.metrics.catalogue import CATALOGUE
from tests.prometheus.coverage import COVERED
from tests.prometheus.tools import dashboard, pages, panels

EXAMPLE = RULES.with_name("prometheus.example.yml")


def alerts() -> set[str]:
    return {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


def test_every_code_of_the_doctor_is_covered() -> None:
    """A problem by an alert, without exception; a warning by one, or by the reason why it costs nothing."""
    codes = {check.code: check.severity for check in CHECKS}
    assert codes.keys() <= COVERED.keys()
    for code, severity in codes.items():
        found = COVERED[code]
        if severity is Severity.PROBLEM:
            assert not isinstance(found, str), code
        if not isinstance(found, str):
            assert set(found) <= alerts(), code


def test_no_code_is_covered_that_the_doctor_does_not_know() -> None:
    assert COVERED.keys() == {check.code for check in CHECKS}


def test_the_pages_are_what_their_generator_makes() -> None:
    """`make catalogue` writes them."""
    for page in (pages.METRICS_PAGE, pages.ALERTS_PAGE):
        text = page.read_text()
        assert pages.written(text) == text, page.name


def test_every_alert_has_a_section_where_its_link_leads() -> None:
    headings = re.findall(r"^### (\w+)$", pages.ALERTS_PAGE.read_text(), re.MULTILINE)
    assert set(headings) == alerts()
    assert len(headings) == len(alerts())


def test_the_dashboard_is_what_its_generator_makes() -> None:
    assert dashboard.FILE.read_text() == dashboard.text()


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    drawn = [name for names in panels.PANELS.values() for name in names]
    assert sorted(drawn) == sorted(CATALOGUE)
    names = {metric.full_name for metric in CATALOGUE.values()} | {"up", "ALERTS"}
    for query in dashboard.queries(dashboard.dashboard()):
        asked = set(re.findall(r"\b(?:gpupool_\w+|process_\w+|up|ALERTS)\b(?=[{\[])", query))
        assert asked, query
        assert asked <= names, query


def test_a_panel_has_one_topic_one_unit_and_a_place_of_its_own() -> None:
    for title, names in panels.PANELS.items():
        metrics = [CATALOGUE[name] for name in names]
        assert len({metric.topic for metric in metrics}) == 1, title
        assert len({(metric.unit, metric.is_timestamp) for metric in metrics} - {("", False)}) <= 1, title
    made = dashboard.dashboard()
    every = [each for panel in made["panels"] for each in (panel, *panel.get("panels", ()))]
    assert len({each["id"] for each in every}) == len(every)
    open_panels = [panel["gridPos"] for panel in made["panels"]]
    assert len({(place["x"], place["y"]) for place in open_panels}) == len(open_panels)
    graphs = [each for each in every if each["type"] == "timeseries"]
    assert all(each["fieldConfig"]["defaults"]["unit"] for each in graphs)
    assert {variable["name"] for variable in made["templating"]["list"]} == {"datasource", "instance"}


def test_the_example_tells_somebody_and_by_silence_that_it_cannot() -> None:
    example = yaml.safe_load(EXAMPLE.read_text())
    (alertmanagers,) = example["alerting"]["alertmanagers"]
    assert alertmanagers["static_configs"] == [{"targets": ["127.0.0.1:9093"]}]
    assert sorted(example["rule_files"]) == sorted(file.name for file in RULES.parent.glob("*.rules.yml"))
    (group,) = yaml.safe_load(RULES.with_name("watchdog.rules.yml").read_text())["groups"]
    (rule,) = group["rules"]
    assert (rule["alert"], rule["expr"], rule.get("for")) == ("Watchdog", "vector(1)", None), "it always fires"


@pytest.mark.skipif(missing_program() is not None, reason=str(missing_program()))
def test_promtool_takes_every_query_of_the_dashboard_and_the_example(tmp_path: Path) -> None:
    found = [
        query.replace("$__rate_interval", "5m").replace("$instance", ".+")
        for query in dashboard.queries(dashboard.dashboard())
    ]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(found)]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(["promtool", "check", "rules", file], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr.decode()
    assert f"{len(found)} rules found" in checked.stdout.decode()
    config = subprocess.run(["promtool", "check", "config", EXAMPLE], capture_output=True, check=False)
    assert config.returncode == 0, config.stderr.decode()
