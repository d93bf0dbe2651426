"""Roles: each RPC of the contract has a rule, and a caller without its roles is refused."""

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from liveavatar.gateway.v1 import admin_service_pb2, audio_service_pb2, session_service_pb2
from liveavatar_gateway.auth.principal import (
    ANY_ROLE,
    EXEMPT,
    MESSAGE_RULES,
    RULES,
    Method,
    Principal,
    Role,
    is_exempt,
    rule_of,
)
from liveavatar_gateway.core.errors import RoleMissing

FILES = (admin_service_pb2, audio_service_pb2, session_service_pb2, reflection_pb2, health_pb2)


def methods(*files):
    """Methods of all services of files, as `service/method`."""
    return {
        f"{service.full_name}/{method.name}"
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def principal(*roles):
    return Principal(
        tenant="acme",
        roles=frozenset(roles),
        method=Method.API_KEY,
        credential="k1",
        expires_at=None,
    )


def test_every_file_with_a_service_is_compared():
    """A new service file of proto/ that is not in FILES would escape the comparison."""
    from importlib import import_module
    from pkgutil import iter_modules

    from liveavatar.gateway import v1

    found = {
        name
        for _, name, _ in iter_modules(v1.__path__)
        if name.endswith("_pb2") and import_module(f"liveavatar.gateway.v1.{name}").DESCRIPTOR.services_by_name
    }
    assert found == {file.__name__.rpartition(".")[2] for file in FILES if "liveavatar" in file.__name__}


def test_every_rpc_has_a_rule_or_is_exempt():
    assert {method for method in methods(*FILES) if not is_exempt(method)} == set(RULES)


def test_health_alone_is_exempt():
    assert {method.partition("/")[0] for method in methods(*FILES) if is_exempt(method)} == EXEMPT
    assert {"grpc.health.v1.Health"} == EXEMPT


def test_every_message_of_attach_has_a_rule():
    kinds = session_service_pb2.AttachRequest.DESCRIPTOR.oneofs_by_name["message"].fields
    assert {kind.name for kind in kinds} == set(MESSAGE_RULES)


def test_a_role_of_attach_is_that_of_one_of_its_messages():
    needed = frozenset[Role]().union(*(rule for rule in MESSAGE_RULES.values() if rule != ANY_ROLE))
    assert RULES["liveavatar.gateway.v1.SessionService/Attach"] == needed


@pytest.mark.parametrize("method", [name for name in RULES if ".AdminService/" in name])
def test_operators_alone_may_operate(method):
    assert RULES[method] == {Role.ADMIN}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("method", list(RULES))
def test_a_role_allows_what_its_rule_names_and_nothing_else(method, role):
    if role in RULES[method]:
        principal(role).require(rule_of(method), method)
    else:
        with pytest.raises(RoleMissing) as refused:
            principal(role).require(rule_of(method), method)
        assert refused.value.metadata["what"] == method
        assert role not in refused.value.metadata["roles"].split(" or ")


@pytest.mark.parametrize("method", list(RULES))
def test_a_caller_without_roles_may_do_nothing(method):
    with pytest.raises(RoleMissing):
        principal().require(rule_of(method), method)


def test_a_method_without_a_rule_is_refused_whatever_the_roles():
    with pytest.raises(RoleMissing):
        principal(*Role).require(rule_of("liveavatar.gateway.v1.SessionService/New"), "New")
