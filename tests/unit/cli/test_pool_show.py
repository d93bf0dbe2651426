"""`pool show`: what an operator reads, and what a program reads."""

import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.duration_pb2 import Duration

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from liveavatar_gateway.cli.pool_show import limit_text, show, state_text, used_text


def account(**values) -> p.PoolAccount:
    return p.PoolAccount(
        **{
            "name": "main",
            "state": p.ACCOUNT_STATE_ACTIVE,
            "breaker": p.BREAKER_STATE_CLOSED,
            "configured_limit": 25,
            "effective_limit": 25,
            "held_count": 3,
            "cost": 1.0,
            **values,
        }
    )


TROUBLED = account(
    name="second",
    state=p.ACCOUNT_STATE_DRAINING,
    drain_left=Duration(seconds=90),
    breaker=p.BREAKER_STATE_OPEN,
    effective_limit=0,
    learned_limit=12,
    settling_count=2,
    suspect_count=1,
    credits=1234.5,
    foreign_session_count=4,
    set_aside="breaker_open",
    retry_in=Duration(seconds=2),
    last_error="LiveAvatar cannot be reached",
)
POOL = p.GetPoolResponse(
    owner="process-1",
    accounts=[account(), TROUBLED],
    tenants=[
        p.PoolTenant(
            name="acme", weight=3, reserved=1, ceiling=9, waiting_count=2, longest_wait=Duration(seconds=7)
        ),
        p.PoolTenant(name="", weight=1, used_permit_count=1),
    ],
    other_tenant_count=5,
    warm=[p.WarmSessions(profile="desk", account="main", warm_count=2, reserved_count=1)],
    waiting_count=2,
    blocked_for=Duration(seconds=4),
)


class Service(AdminServiceServicer):
    """Answers with one pool, and counts calls; ends a watch by refusing the third."""

    def __init__(self) -> None:
        self.answer = POOL
        self.calls = 0

    def GetPool(  # noqa: N802 - named in the contract
        self, request: p.GetPoolRequest, context: grpc.ServicerContext
    ) -> p.GetPoolResponse:
        self.calls += 1
        if self.calls > 2:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "enough")
        return self.answer


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def run(service):
    server = grpc.server(ThreadPoolExecutor(1))
    add_AdminServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield lambda *arguments: CliRunner().invoke(show, ["--address", f"127.0.0.1:{port}", *arguments])
    server.stop(None).wait(5)


def test_the_table_says_what_an_operator_has_to_know(run):
    result = run()
    assert result.exit_code == 0, result.output
    for text in (
        "draining, 1 min 30 s left",
        "3 +2~ +1?",
        "0 (learned 12, configured 25)",
        "1,234",
        "breaker_open, again in 2.0 s",
        "second: LiveAvatar cannot be reached",
        "7.0 s",
        "(anonymous)",
        "and 5 more tenants",
        "desk",
        "2 caller(s) wait for a permit",
        "no permit is granted for 4 s",
    ):
        assert text in result.stdout, text


def test_a_pool_at_rest_is_short(run, service):
    service.answer = p.GetPoolResponse(accounts=[account()])
    result = run()
    assert "tenant" not in result.stdout
    assert "profile" not in result.stdout
    assert "yes" in result.stdout


def test_json_has_each_value_and_null_for_what_is_unknown(run):
    shown = json.loads(run("--json").stdout)
    main, second = shown["accounts"]
    assert (main["state"], main["credits"], main["set_limit"], main["drain_left_s"]) == (
        "active",
        None,
        None,
        None,
    )
    assert (second["state"], second["breaker"], second["credits"]) == ("draining", "open", 1234.5)
    assert (second["retry_in_s"], second["learned_limit"], second["set_aside"]) == (2.0, 12, "breaker_open")
    acme, anonymous = shown["tenants"]
    assert (acme["ceiling"], acme["longest_wait_s"]) == (9, 7.0)
    assert (anonymous["ceiling"], anonymous["longest_wait_s"]) == (None, None)
    assert shown["warm"] == [{"profile": "desk", "account": "main", "warm_count": 2, "reserved_count": 1}]
    assert (shown["waiting_count"], shown["owner"], shown["blocked_for_s"]) == (2, "process-1", 4.0)


def test_a_watch_looks_again_and_json_is_a_line_for_each_look(run, service):
    result = run("--json", "--watch", "--interval", "0.2")
    assert service.calls == 3
    assert [json.loads(line)["waiting_count"] for line in result.stdout.splitlines()] == [2, 2]
    assert result.exit_code == 1


def test_a_watch_shows_the_time_of_each_look(run):
    assert run("--watch", "--interval", "0.2").stdout.count(" UTC") == 2


@pytest.mark.parametrize("interval", ["0.1", "3601", "nan"])
def test_an_interval_out_of_range_is_refused(run, service, interval):
    assert run("--watch", "--interval", interval).exit_code == 2
    assert not service.calls


def test_texts_name_only_what_differs():
    fields = {
        "configured_limit": 5,
        "effective_limit": 5,
        "set_limit": None,
        "learned_limit": None,
        "state": "active",
        "drain_left_s": None,
        "held_count": 2,
        "settling_count": 0,
        "suspect_count": 0,
    }
    assert (limit_text(fields), state_text(fields), used_text(fields)) == ("5", "active", "2")
    assert limit_text({**fields, "effective_limit": 7, "set_limit": 7}) == "7 (set to 7, configured 5)"
