"""The rules for Prometheus, by Prometheus' own tool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import receivers
import sections

from cdc import metrics
from cdc.alert import metrics as alert_metrics

FOLDER = Path(__file__).parents[2] / "docker/prometheus"
RULES = (FOLDER / "cdc.rules.yml").read_text(encoding="utf-8")
SUITES = ("cdc.test.yml", "budget.test.yml")
TESTS = "".join((FOLDER / name).read_text(encoding="utf-8") for name in SUITES)


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        [receivers.needs("promtool"), *arguments],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_and_its_rules_are_valid() -> None:
    """Prometheus would load the example with all its rules."""
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    """The rules are run on stalls, absent metrics, burnt budgets and an hour in which all is well."""
    promtool("test", "rules", *SUITES)


def test_each_alert_is_tested_both_ways() -> None:
    """For each alert there is a moment at which it fires, and one at which it does not."""
    names = set(re.findall(r"- alert: (\w+)", RULES))
    fires = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:", TESTS))
    quiet = set(re.findall(r"\{eval_time: \w+, alertname: (\w+)\}", TESTS))

    assert names
    assert names == fires == quiet


def test_the_rules_use_metrics_that_exist() -> None:
    """Each metric that a rule or its test names is one that a daemon or the watcher exposes."""
    exposed = {
        value.name
        for module in (metrics, alert_metrics)
        for value in vars(module).values()
        if isinstance(value, metrics.Name)
    }
    used = set(re.findall(r"\bcdc_[a-z_]+", RULES + TESTS))

    assert used
    assert set() == used - exposed


def test_each_alert_links_to_what_to_do() -> None:
    """Every runbook_url leads to a section that says meaning, sight, remedy and end."""
    links = re.findall(r"runbook_url: docs/operations\.md#(\S+)", RULES)

    assert len(links) == RULES.count("- alert: ")
    for link in links:
        sections.complete(link)
