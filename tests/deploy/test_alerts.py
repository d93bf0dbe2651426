"""The alerts watch what there is: metrics of the dashboard, whose existence on a gateway another test proves."""

import json
import re

import yaml

from liveavatar_gateway.pool.account_health import Trouble
from testkit.compose import ROOT

_PROMETHEUS = ROOT / "deploy/prometheus"
_METRIC = re.compile(r"\bgateway_[a-z0-9_]+\b")


def _rules() -> list[dict]:
    return [
        rule
        for group in yaml.safe_load((_PROMETHEUS / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]


def test_every_metric_of_an_alert_is_on_the_dashboard_with_its_job():
    dashboard = (ROOT / "deploy/grafana/dashboards/gateway.json").read_text()
    shown = {
        re.sub(r"_(?:bucket|count|sum)$", "", metric)
        for panel in json.loads(dashboard)["panels"]
        for target in panel.get("targets", [])
        for metric in _METRIC.findall(target["expr"])
    }
    for rule in _rules():
        metrics = _METRIC.findall(rule["expr"])
        assert metrics, rule["alert"]
        assert {re.sub(r"_(?:bucket|count|sum)$", "", metric) for metric in metrics} <= shown, rule["alert"]
        assert rule["expr"].count('job="gateway"') == len(metrics), rule["alert"]


def test_every_alert_says_what_to_do():
    rules = _rules()
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]


def test_causes_of_an_account_set_aside_exist():
    (rule,) = [rule for rule in _rules() if rule["alert"] == "AccountSetAside"]
    (causes,) = re.findall(r'cause=~"([^"]+)"', rule["expr"])
    assert set(causes.split("|")) <= {trouble.value for trouble in Trouble}


def test_prometheus_reads_the_alerts_where_compose_mounts_them():
    config = yaml.safe_load((_PROMETHEUS / "prometheus.yml").read_text())
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["prometheus"]["volumes"])
    assert config["rule_files"] == ["alerts.yml"]
    assert mounts["./deploy/prometheus/alerts.yml"] == "/etc/prometheus/alerts.yml"
