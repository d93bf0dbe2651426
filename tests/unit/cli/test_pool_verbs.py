"""Verbs of `pool`: what they ask of the gateway, and what they print."""

import json
from concurrent.futures import ThreadPoolExecutor

import click
import grpc
import pytest
from click.testing import CliRunner

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from liveavatar_gateway.cli.pool_verbs import drain, limit, pause, reload, resume

ACCOUNT = p.PoolAccount(
    name="main",
    state=p.ACCOUNT_STATE_PAUSED,
    breaker=p.BREAKER_STATE_CLOSED,
    configured_limit=5,
    held_count=2,
)


class Service(AdminServiceServicer):
    """Notes requests."""

    def __init__(self) -> None:
        self.requests: list[object] = []
        self.reloaded = p.ReloadPoolResponse()

    def PauseAccount(self, request, context):  # noqa: N802 - named in the contract
        self.requests.append(request)
        return p.PauseAccountResponse(account=ACCOUNT)

    def ResumeAccount(self, request, context):  # noqa: N802
        self.requests.append(request)
        return p.ResumeAccountResponse(account=ACCOUNT)

    def DrainAccount(self, request, context):  # noqa: N802
        self.requests.append(request)
        return p.DrainAccountResponse(account=ACCOUNT)

    def SetAccountLimit(self, request, context):  # noqa: N802
        self.requests.append(request)
        return p.SetAccountLimitResponse(account=ACCOUNT)

    def ReloadPool(self, request, context):  # noqa: N802
        return self.reloaded


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def run(service):
    server = grpc.server(ThreadPoolExecutor(1))
    add_AdminServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def invoke(command: click.Command, *arguments: str):
        return CliRunner().invoke(command, [*arguments, "--address", f"127.0.0.1:{port}"])

    yield invoke
    server.stop(None).wait(5)


def test_pause_prints_the_account(run, service):
    result = run(pause, "main")
    assert result.stdout == "main: paused, 2 in use, limit 0 (configured 5)\n"
    assert service.requests == [p.PauseAccountRequest(account="main")]


def test_json_is_the_account(run):
    assert json.loads(run(pause, "main", "--json").stdout)["state"] == "paused"


def test_resume_says_if_nothing_was_stopped(run, service):
    assert "was neither paused nor draining" in run(resume, "main").stdout
    assert service.requests == [p.ResumeAccountRequest(account="main")]
    assert json.loads(run(resume, "main", "--json").stdout)["name"] == "main"


def test_drain_has_a_deadline_only_with_a_grace(run, service):
    run(drain, "main")
    run(drain, "main", "--grace", "1.5")
    without, with_grace = service.requests
    assert not without.HasField("grace")
    assert with_grace.grace.ToTimedelta().total_seconds() == 1.5
    assert run(drain, "main", "--grace", "-1").exit_code == 2


def test_limit_is_a_number_or_reset(run, service):
    run(limit, "main", "7")
    run(limit, "main", "--reset")
    seven, reset = service.requests
    assert (seven.limit, reset.HasField("limit")) == (7, False)


@pytest.mark.parametrize("arguments", [("main",), ("main", "7", "--reset"), ("main", "0"), ("main", "10001")])
def test_a_limit_that_is_unclear_is_refused_before_the_call(run, service, arguments):
    assert run(limit, *arguments).exit_code == 2
    assert not service.requests


def test_reload_prints_what_changed_and_fails_if_a_file_cannot_be_used(run, service):
    assert run(reload).stdout == "nothing changed\n"
    service.reloaded = p.ReloadPoolResponse(changed=["file of accounts"], retried_accounts=["main"])
    result = run(reload)
    assert (result.exit_code, result.stdout) == (0, "changed: file of accounts\ntries the key again: main\n")
    service.reloaded = p.ReloadPoolResponse(failed=["file of accounts: no such file"])
    result = run(reload)
    assert (result.exit_code, result.stdout) == (1, "cannot be used: file of accounts: no such file\n")
    assert json.loads(run(reload, "--json").stdout)["failed"] == ["file of accounts: no such file"]


@pytest.mark.parametrize("command", [pause, resume, drain, limit, reload], ids=lambda command: command.name)
def test_help_teaches_for_whom_it_holds(command):
    text = CliRunner().invoke(command, ["--help"]).stdout
    assert any(word in text for word in ("any process", "all processes", "on it", "again", "alone"))
