"""Usage for accountants: CSV that a spreadsheet reads, and runs nothing of."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from click.testing import CliRunner

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from liveavatar_gateway.cli.usage import COLUMNS, usage

ROWS = [
    p.UsageRow(day="2026-11-29", tenant="acme", label="", session_count=1, billed_minutes=2),
    p.UsageRow(day="2026-11-30", tenant="acme", label="a,b\n", session_count=3, billed_minutes=40),
    p.UsageRow(day="2026-11-30", tenant="zoo", label="=HYPERLINK(1)", billed_minutes=1),
]


class Service(AdminServiceServicer):
    """Has one row on each page, and notes what is asked for."""

    def __init__(self) -> None:
        self.requests: list[p.GetUsageRequest] = []

    def GetUsage(  # noqa: N802 - named in the contract
        self, request: p.GetUsageRequest, context: object
    ) -> p.GetUsageResponse:
        self.requests.append(request)
        number = int(request.page_token or 0)
        following = str(number + 1) if number + 1 < len(ROWS) else ""
        return p.GetUsageResponse(rows=ROWS[number : number + 1], next_page_token=following)


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def run(service):
    server = grpc.server(ThreadPoolExecutor(1))
    add_AdminServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield lambda *arguments: CliRunner().invoke(usage, ["--address", f"127.0.0.1:{port}", *arguments])
    server.stop(None).wait(5)


def test_csv_has_a_header_and_each_row(run):
    result = run("--csv")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["day"], row["tenant"], row["billed_minutes"]) for row in rows] == [
        ("2026-11-29", "acme", "2"),
        ("2026-11-30", "acme", "40"),
        ("2026-11-30", "zoo", "1"),
    ]
    assert [row["label"] for row in rows] == ["", "a,b\\n", "'=HYPERLINK(1)"]


def test_json_has_labels_as_they_are(run):
    rows = json.loads((run("--json")).stdout)
    assert [row["label"] for row in rows] == ["", "a,b\n", "=HYPERLINK(1)"]


def test_people_get_the_sum(run):
    assert "43 billed minutes" in (run()).stdout


def test_tenant_and_days_are_passed_on(run, service):
    run("--tenant", "acme", "--from", "2026-11-01", "--to", "2026-11-30")
    request = service.requests[-1]
    assert (request.tenant, request.first_day, request.last_day) == ("acme", "2026-11-01", "2026-11-30")
    run()
    assert not service.requests[-1].HasField("tenant")


@pytest.mark.parametrize("arguments", [("--csv", "--json"), ("--from", "yesterday")])
def test_wrong_usage_is_refused(run, arguments):
    assert (run(*arguments)).exit_code == 2
