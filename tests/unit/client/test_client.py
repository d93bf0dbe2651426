import inspect
import subprocess
import sys

import liveavatar
from liveavatar import gateway
from liveavatar.gateway import (
    AsyncClient,
    AsyncSession,
    AsyncUtterance,
    AsyncWatch,
    Client,
    Session,
    Utterance,
    Watch,
    errors,
)


def test_all_that_is_announced_is_there():
    assert all(hasattr(gateway, name) for name in gateway.__all__)
    assert len(set(gateway.__all__)) == len(gateway.__all__)


def test_a_name_is_imported_with_its_first_use_and_only_announced_names_exist():
    probe = (
        "import sys; from liveavatar.gateway.v1 import session_service_pb2; import liveavatar.gateway as gateway; "
        "assert 'liveavatar.gateway.aio' not in sys.modules; "
        "assert set(gateway.__all__) <= set(dir(gateway)); "
        "assert not hasattr(gateway, 'nonsense'); "
        "assert 'liveavatar.gateway.aio' not in sys.modules; "
        "from liveavatar.gateway import *; assert AsyncClient is gateway.AsyncClient; "
        "assert gateway.AsyncClient.__module__ == 'liveavatar.gateway.aio'"
    )
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=60)


def test_liveavatar_is_a_namespace_that_others_may_add_to():
    assert liveavatar.__spec__.origin is None


def test_every_exception_is_announced():
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.GatewayError)
    }
    assert raised <= set(gateway.__all__)


def test_the_blocking_client_has_the_same_shape():
    """Both clients have the same methods and arguments, but for a timeout of the blocking client."""
    pairs = [(AsyncClient, Client), (AsyncSession, Session), (AsyncUtterance, Utterance), (AsyncWatch, Watch)]
    # Only the blocking client needs to know which sessions are still to be ended.
    inner = {"unended"}
    for asynchronous, blocking in pairs:
        theirs = {name for name in vars(asynchronous) if not name.startswith("_")} - inner
        assert theirs == {name for name in vars(blocking) if not name.startswith("_")}
        for name in theirs | {"__init__"} if asynchronous is AsyncClient else theirs:
            member, other = getattr(asynchronous, name), getattr(blocking, name)
            if isinstance(member, property):
                assert isinstance(other, property), name
                continue
            mine = dict(inspect.signature(other).parameters)
            expected = dict(inspect.signature(member).parameters)
            if "timeout" not in expected:
                mine.pop("timeout", None)
            assert [(p.name, p.default, p.kind) for p in mine.values()] == [
                (p.name, p.default, p.kind) for p in expected.values()
            ], name
