"""The list of avatars as people and programs read it."""

import json

import pytest
from click.testing import CliRunner

from liveavatar import gateway
from liveavatar_gateway.cli.avatars import avatars

ADA = gateway.Avatar(id="1", name="Ada", preview_url="https://p.example", is_1080p=True, sandbox=False)
WAYNE = gateway.Avatar(id="2", name="Wayne", preview_url="", is_1080p=False, sandbox=True)


@pytest.fixture
def run(monkeypatch):
    def with_avatars(found, *arguments):
        class Client:
            def __init__(self, *_arguments, **_keywords):
                pass

            def __enter__(self):
                return self

            def __exit__(self, *_exc_info):
                pass

            def list_avatars(self, *, page_size):
                assert page_size == 500
                return iter(found)

        monkeypatch.setattr(gateway, "Client", Client)
        done = CliRunner().invoke(avatars, arguments, catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    return with_avatars


def test_people_get_a_table(run):
    lines = [line.split() for line in run([ADA, WAYNE]).splitlines()]
    assert lines == [
        ["id", "name", "1080p", "sandbox", "preview"],
        ["1", "Ada", "yes", "no", "https://p.example"],
        ["2", "Wayne", "no", "yes", "-"],
    ]
    assert run([]) == "no avatars\n"


def test_programs_get_json(run):
    assert json.loads(run([ADA], "--json")) == [
        {"id": "1", "name": "Ada", "preview_url": "https://p.example", "is_1080p": True, "sandbox": False}
    ]
    assert run([], "--json") == "[]\n"
