"""The dashboard shows what there is: all that a real gateway measures, and nothing else."""

import json
import re

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from testkit import processes
from testkit.caller import caller
from testkit.compose import ROOT
from testkit.pool_files import profile, write_pool_file
from testkit.speech import sound

_DASHBOARDS = ROOT / "deploy/grafana/dashboards"
_METRIC = re.compile(r"\b(?:gateway|process|python)_[a-z0-9_]+\b")


def _panels() -> list[dict]:
    dashboard = json.loads((_DASHBOARDS / "gateway.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def _expressions() -> list[str]:
    return [target["expr"] for panel in _panels() for target in panel["targets"]]


async def test_every_metric_of_the_dashboard_exists_on_a_gateway_that_spoke(tmp_path):
    named = {metric for expression in _expressions() for metric in _METRIC.findall(expression)}
    assert len(named) > 10
    pool_file = write_pool_file(tmp_path, {"desk": profile()})
    with (
        processes.emulator(speed=8) as emulator,
        processes.gateway(emulator.url, metrics_port=0, pool_file=pool_file, api_key="") as gateway,
    ):
        # A failure, so that the errors by reason are there too.
        emulator.fault("token", status=503, times=1)
        async with caller(gateway.address) as client:
            created = await client.create()
            speech = await client.speak(created.session.id)
            await speech.say(sound(0.5))
            await speech.until("ended")
            await speech.call.done_writing()
            await client.end(created.session.id)
        async with httpx.AsyncClient(timeout=10) as http:
            text = (await http.get(str(gateway.metrics))).text
    shown = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert named <= shown, f"not there: {sorted(named - shown)}"
    own = {name for name in shown if name.startswith("gateway_") and not name.endswith(("_created", "_info"))}
    unseen = {_measured(name) for name in own} - {_measured(name) for name in named}
    assert not unseen, f"measured, and on no panel: {sorted(unseen)}"


def _measured(sample: str) -> str:
    """The histogram that a sample belongs to, or the sample itself."""
    return re.sub(r"_(?:bucket|count|sum)$", "", sample)


def test_every_panel_says_what_it_shows_and_asks_the_one_data_source():
    sources = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    uids = {source["uid"] for source in sources["datasources"]}
    for panel in _panels():
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} <= uids
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_panels_do_not_overlap():
    taken = set()
    for panel in _panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells


def test_dashboards_are_where_grafana_is_told_to_look():
    providers = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/gateway.yml").read_text())
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    assert [one["options"]["path"] for one in providers["providers"]] == [mounts["./deploy/grafana/dashboards"]]
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(mounts["./deploy/grafana/dashboards"])


def test_every_scrape_has_the_job_that_the_dashboard_filters_by():
    jobs = {
        one["job_name"]
        for one in yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    }
    filtered = {job for expression in _expressions() for job in re.findall(r'job="([^"]+)"', expression)}
    assert filtered == jobs
