"""Addresses of callers: forwarded ones count only as far as trusted proxies vouch for them."""

import pytest

from liveavatar_gateway.rpc.peer import networks, peer_address

TRUSTED = networks("10.0.0.0/8, 2001:db8::/32")


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:4711", "192.0.2.1"),
        ("ipv6:%5B2001:db9::1%5D:4711", "2001:db9::1"),
        ("ipv6:[2001:db9::1]:4711", "2001:db9::1"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:4711", "192.0.2.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4711", "fe80::1%eth0"),
        ("unix:", "unix"),
        ("unix:/run/gateway.sock", "unix"),
        ("unix-abstract:gateway", "unix"),
        ("ipv4:nonsense:1", "ipv4:nonsense:1"),
        ("vsock:\n1", "vsock:1"),
        ("x" * 500, "x" * 100),
        ("", ""),
    ],
)
def test_a_peer_is_named_by_its_address(peer, address):
    assert peer_address(peer, ["203.0.113.9"], ()) == address
    assert peer_address(peer, ["203.0.113.9"], TRUSTED) == address


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.7, 203.0.113.9"], "203.0.113.9"),
        (["198.51.100.7, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        (["198.51.100.7", "203.0.113.9", "10.0.0.2,10.0.0.3"], "203.0.113.9"),
        (["203.0.113.9:5555"], "203.0.113.9"),
        (["2001:db9::1"], "2001:db9::1"),
        (["[2001:db9::1]:443"], "2001:db9::1"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["10.0.0.4, 10.0.0.2"], "10.0.0.4"),
        (["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
        (["203.0.113.9, "], "10.1.1.1"),
        (["203.0.113.9, 999.0.0.1"], "10.1.1.1"),
        ([], "10.1.1.1"),
        ([""], "10.1.1.1"),
        (["203.0.113.9" + ", 10.0.0.2" * 100], "10.0.0.2"),
    ],
)
def test_behind_trusted_proxies_the_last_address_that_is_not_theirs_counts(forwarded, address):
    assert peer_address("ipv4:10.1.1.1:4711", forwarded, TRUSTED) == address
    assert peer_address("ipv6:%5B2001:db8::5%5D:1", forwarded, TRUSTED) == address.replace(
        "10.1.1.1", "2001:db8::5"
    )


def test_what_an_untrusted_peer_forwards_is_ignored():
    assert peer_address("ipv4:192.0.2.1:4711", ["203.0.113.9"], TRUSTED) == "192.0.2.1"
    assert peer_address("ipv4:10.1.1.1:4711", ["203.0.113.9"], ()) == "10.1.1.1"


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), (" , ", 0), ("10.0.0.1", 1), ("10.0.0.0/8 ::1", 2), ("::/0,0.0.0.0/0", 2)]
)
def test_networks_are_listed_with_commas_or_spaces(text, count):
    assert len(networks(text)) == count


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy.example", "10.0.0.0/33", "10.0.0.0/8;::1"])
def test_an_entry_that_is_no_network_is_refused(text):
    with pytest.raises(ValueError, match=r"\S"):
        networks(text)
