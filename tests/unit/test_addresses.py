"""Addresses with ports, and errors that name the setting to change."""

import errno
import socket

import pytest

from liveavatar_gateway.addresses import family, host_port, listen_problem, listen_refusal


def test_an_ipv6_address_gets_brackets():
    assert host_port("127.0.0.1", 1) == "127.0.0.1:1"
    assert host_port("::1", 1) == "[::1]:1"
    assert (family("::1"), family("127.0.0.1")) == (socket.AF_INET6, socket.AF_INET)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EADDRINUSE, "in use"), "P: cannot listen on h:1: the port is in use; choose another port"),
        (OSError(errno.EACCES, "denied"), "P: cannot listen on h:1: this user may not use the port"),
        (OSError(errno.EADDRNOTAVAIL, "no"), "H: cannot listen on h:1: h is not an address of this machine"),
        (
            OSError(errno.EAFNOSUPPORT, "no"),
            "H: cannot listen on h:1: this machine has no addresses of this family",
        ),
        (socket.gaierror(-2, "no"), "H: cannot listen on h:1: h is not an address or a name that resolves"),
        (OSError(errno.EPERM, "no luck"), "H, P: cannot listen on h:1: no luck"),
        (None, "H, P: cannot listen on h:1: the operating system refused"),
    ],
)
def test_each_cause_names_the_setting_to_change(error, expected):
    assert listen_refusal(error, "h", 1, host_setting="H", port_setting="P") == expected


def test_a_port_in_use_is_a_problem():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        error = listen_problem("127.0.0.1", taken.getsockname()[1])
    assert error is not None
    assert error.errno == errno.EADDRINUSE
    assert listen_problem("127.0.0.1", 0) is None
