"""Statuses of health: a watcher that reads nothing delays nobody."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2 as p

from liveavatar_gateway.rpc.health import HealthService

SERVING, NOT_SERVING = p.HealthCheckResponse.SERVING, p.HealthCheckResponse.NOT_SERVING


class Aborted(Exception):
    pass


class Context:
    def __init__(self) -> None:
        self.written: asyncio.Queue[int] = asyncio.Queue()

    async def write(self, response):
        self.written.put_nowait(response.status)

    async def abort(self, code, _text):
        raise Aborted(code)


class StuckContext(Context):
    async def write(self, response):
        await super().write(response)
        await asyncio.Event().wait()


def request(service: str = "") -> p.HealthCheckRequest:
    return p.HealthCheckRequest(service=service)


async def test_a_check_returns_the_status_and_an_unknown_service_is_not_found():
    health = HealthService()
    health.set("", SERVING)
    assert (await health.Check(request(), Context())).status == SERVING
    with pytest.raises(Aborted) as refused:
        await health.Check(request("other"), Context())
    assert refused.value.args == (grpc.StatusCode.NOT_FOUND,)


async def test_a_watch_reports_each_change_once_also_of_a_service_that_comes_later():
    health, context = HealthService(), Context()
    health.set("", SERVING)
    watching = [
        asyncio.create_task(health.Watch(request(), context)),
        asyncio.create_task(health.Watch(request("later"), later := Context())),
    ]
    assert await context.written.get() == SERVING
    assert await later.written.get() == p.HealthCheckResponse.SERVICE_UNKNOWN
    health.set("", SERVING)
    health.set("later", NOT_SERVING)
    health.set("", NOT_SERVING)
    assert await context.written.get() == NOT_SERVING
    assert await later.written.get() == NOT_SERVING
    assert context.written.empty()
    for task in watching:
        task.cancel()
    await asyncio.wait(watching)


async def test_a_watcher_that_reads_nothing_delays_neither_a_change_nor_other_watchers():
    health, stuck, context = HealthService(), StuckContext(), Context()
    health.set("", SERVING)
    watching = [asyncio.create_task(health.Watch(request(), each)) for each in (stuck, context)]
    assert await stuck.written.get() == SERVING
    assert await context.written.get() == SERVING
    health.set("", NOT_SERVING)
    assert await context.written.get() == NOT_SERVING
    for task in watching:
        task.cancel()
    await asyncio.wait(watching)


async def test_a_list_names_every_service_with_its_status():
    health = HealthService()
    health.set("", SERVING)
    health.set("a.Service", NOT_SERVING)
    listed = await health.List(p.HealthListRequest(), Context())
    assert {name: answer.status for name, answer in listed.statuses.items()} == {
        "": SERVING,
        "a.Service": NOT_SERVING,
    }


def test_every_method_of_the_service_is_implemented():
    methods = p.DESCRIPTOR.services_by_name["Health"].methods
    assert {method.name for method in methods} <= vars(HealthService).keys()
