"""Debian's Prometheus, started against agents on loopback: which alerts fire?

The rules are those of `packaging/prometheus`, in a hurry: what has to hold for minutes there has to hold for seconds
here, and what is looked at over an hour is looked at over half a minute. Thresholds stay as they are.
Needs the programs of the package `prometheus`; nothing else on the machine is touched.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from agent.devnet.layout import free_ports

RULES = Path(__file__).parents[2] / "packaging" / "prometheus" / "gpupool.rules.yml"
JOB = "gpupool-agent"
SCRAPE_S = 1
FOR_S = 2
WINDOW_S = 30
START_TIMEOUT_S = 30.0
POLL_S = 0.25


class Prometheus:
    """One that runs. Its calls block; a trio task asks through `trio.to_thread`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=10)

    def firing(self) -> dict[str, set[str]]:
        """Names of the alerts that fire now, each with the instances that it fires for."""
        return self._alerts("firing")

    def pending(self) -> dict[str, set[str]]:
        """The same of those whose time is not over yet."""
        return self._alerts("pending")

    def _alerts(self, state: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for alert in self._get("/api/v1/alerts")["alerts"]:
            if alert["state"] == state:
                labels = alert["labels"]
                found.setdefault(labels["alertname"], set()).add(labels.get("instance", ""))
        return found

    def wait_firing(self, name: str, instance: str, *, timeout_s: float = 60.0) -> None:
        """Return once this alert fires for this instance.

        Raises:
            TimeoutError: it does not in time; the message says what does.
        """
        self._wait(lambda: instance in self.firing().get(name, ()), f"{name} fires for {instance}", timeout_s)

    def wait_resolved(self, name: str, instance: str, *, timeout_s: float = 60.0) -> None:
        """Return once this alert does not fire for this instance.

        Raises:
            TimeoutError: it fires still.
        """
        self._wait(lambda: instance not in self.firing().get(name, ()), f"{name} is over for {instance}", timeout_s)

    def wait_value(self, query: str, *, timeout_s: float = 60.0) -> float:
        """The first value that this query yields, once it yields any.

        Raises:
            TimeoutError: it yields none in time.
        """
        self._wait(lambda: bool(self.query(query)), f"{query} has a value", timeout_s)
        return float(self.query(query)[0]["value"][1])

    def query(self, query: str) -> list[dict[str, Any]]:
        """What an instant query yields now: labels (`metric`) and `value`, a pair of time and text."""
        result: list[dict[str, Any]] = self._get("/api/v1/query", query=query)["result"]
        return result

    def close(self) -> None:
        self._client.close()

    def _get(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(path, params=parameters)
        value = answer.json()
        if value["status"] != "success":
            raise ValueError(f"{path}: {value.get('error')}")
        return value["data"]

    def _wait(self, is_so: Callable[[], bool], what: str, timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > until_s:
                raise TimeoutError(f"not in {timeout_s:.0f} s: {what}; firing: {self.firing()}, soon: {self.pending()}")
            time.sleep(POLL_S)


def missing_program() -> str | None:
    """Which program is not installed, if one is not: a reason to skip."""
    absent = next((name for name in ("prometheus", "promtool") if shutil.which(name) is None), None)
    return None if absent is None else f"{absent} is not installed: apt install prometheus"


@contextmanager
def run_prometheus(
    targets: Mapping[str, str], *, rules: Path = RULES, for_s: int = FOR_S, window_s: int = WINDOW_S
) -> Iterator[Prometheus]:
    """Scrape these targets (instance name to `host:port`) once a second, as the job of the rules, within the block.

    Its data is in a temporary folder, its listener on loopback; it is stopped in the end, whatever happens.

    Raises:
        TimeoutError: it does not start; the message is the last of its log.
    """
    with tempfile.TemporaryDirectory(prefix="gpupool-prometheus-") as name:
        folder, port = Path(name), free_ports(1)[0]
        (folder / "rules.yml").write_text(json.dumps(hurried(yaml.safe_load(rules.read_text()), for_s, window_s)))
        (folder / "prometheus.yml").write_text(json.dumps(_config(targets)))  # JSON is YAML
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches only us, so that all is stopped in order
            )
        found = Prometheus(f"http://127.0.0.1:{port}")
        try:
            _wait_ready(found.url, process, log)
            yield found
        finally:
            found.close()
            process.terminate()
            process.wait()


def hurried(rules: dict[str, Any], for_s: int = FOR_S, window_s: int = WINDOW_S) -> dict[str, Any]:
    """The same rules with every `for` of `for_s` and every range of `window_s` seconds."""
    return {
        "groups": [
            {**group, "rules": [_hurried_rule(rule, for_s, window_s) for rule in group["rules"]]}
            for group in rules["groups"]
        ]
    }


def _hurried_rule(rule: dict[str, Any], for_s: int, window_s: int) -> dict[str, Any]:
    changed = {**rule, "expr": re.sub(r"\[\d+[smhd]\]", f"[{window_s}s]", rule["expr"])}
    return {**changed, "for": f"{for_s}s"} if "for" in rule else changed


def _config(targets: Mapping[str, str]) -> dict[str, Any]:
    every = f"{SCRAPE_S}s"
    return {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {
                "job_name": JOB,
                "static_configs": [
                    {"targets": [address], "labels": {"instance": instance}} for instance, address in targets.items()
                ],
            }
        ],
    }


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < until_s:
        try:
            if httpx.get(f"{url}/-/ready", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(POLL_S)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise TimeoutError(f"prometheus did not start: {lines[-1] if lines else 'no output'}")
