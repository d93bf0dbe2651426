"""The gateway's address, from what Locust users write as a host."""

import pytest

from load.run_config import InvalidRunConfig
from load.target import target_of


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        (" gw.example:443 ", "gw.example:443"),
        ("http://gw.example:50051/", "gw.example:50051"),
        ("[::1]:50051", "[::1]:50051"),
        ("dns:///gw.example:50051", "dns:///gw.example:50051"),
        ("unix:/tmp/gateway.sock", "unix:/tmp/gateway.sock"),
    ],
)
def test_a_host_is_understood(host, target):
    assert target_of(host) == target


@pytest.mark.parametrize(
    "host", ["https://gw.example:443", "gw.example", "http://gw.example", "", "gw:x", "gw:0", "a:1/b"]
)
def test_a_host_that_cannot_be_used_is_refused_with_what_to_write(host):
    with pytest.raises(InvalidRunConfig, match="write host:port"):
        target_of(host)
