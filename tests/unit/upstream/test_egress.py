"""Hosts that LiveAvatar names: each one that is not public is refused, however it is written."""

import asyncio
import contextlib
import ipaddress
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.core.errors import UpstreamAddressRefused, UpstreamUnreachable
from liveavatar_gateway.upstream import egress as module
from liveavatar_gateway.upstream.egress import (
    Egress,
    EgressConfig,
    Malformed,
    Reach,
    is_listed,
    reach_of,
    reach_of_host,
    read_patterns,
    read_target,
)
from liveavatar_gateway.upstream.model import Started
from liveavatar_gateway.upstream.proxies import Proxies

PUBLIC_API = "https://api.liveavatar.com"
LOCAL_API = "http://127.0.0.1:8787"
NAMES = {
    "api.liveavatar.com": ["8.8.8.8"],
    "ws.example.com": ["8.8.4.4", "2001:4860:4860::8888"],
    "inside.example.com": ["10.0.0.5"],
    "half-inside.example.com": ["8.8.8.8", "127.0.0.1"],
    "metadata.example.com": ["169.254.169.254"],
    "mapped.example.com": ["::ffff:127.0.0.1"],
    "link.example.com": ["fe80::1%lo"],
    "emulator": ["172.18.0.2"],
    "vpn.example.com": ["198.18.0.7"],
    "mesh.example.com": ["240.240.0.7", "2001:2::f0f0:7"],
    "broadcast.example.com": ["255.255.255.255"],
    "empty.example.com": [],
}

LOCAL = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.255",
    "::1",
    "fc00::1",
    "fdff::1",
    "::ffff:127.0.0.1",
    "::ffff:10.1.2.3",
    "198.18.0.1",
    "198.19.255.255",
    "240.0.0.1",
    "240.240.0.7",
    "255.255.255.254",
    "2001:2::f0f0:1",
    "::ffff:198.18.0.1",
    "::ffff:240.240.0.1",
]
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.0.1",
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.1",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "233.252.0.1",
    "255.255.255.255",
    "::ffff:255.255.255.255",
    "::",
    "::2",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:0.0.0.0",
    "::ffff:169.254.169.254",
    "::ffff:224.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:2:1::1",
    "64:ff9b::198.18.0.1",
    "64:ff9b::240.240.0.1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2a00::1%eth0",
]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.32.0.1",
    "100.128.0.1",
    "169.253.1.1",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]
BAD = [
    ("http://ws.example.com/path", "scheme"),
    ("https://ws.example.com/path", "scheme"),
    ("ftp://ws.example.com/", "scheme"),
    ("file:///etc/passwd", "form"),
    ("javascript:alert(1)", "form"),
    ("javascript://ws.example.com/%0aalert(1)", "scheme"),
    ("ws://ws.example.com/", "scheme"),
    ("wss://", "form"),
    ("wss:///path", "form"),
    ("wss:ws.example.com", "form"),
    ("//ws.example.com/", "form"),
    ("", "form"),
    (" ", "form"),
    (" wss://ws.example.com/", "form"),
    ("wss://ws.example.com/\n", "form"),
    ("wss://ws.exa\tmple.com/", "form"),
    ("wss://ws example.com/", "form"),
    ("wss://ws.example.com:99999/", "form"),
    ("wss://ws.example.com:0/", "form"),
    ("wss://ws.example.com:port/", "form"),
    ("wss://ws.example.com:/", "form"),
    ("wss://ws.example.com:443:443/", "form"),
    ("wss://[half/", "form"),
    ("wss://[::1/", "form"),
    ("wss://[1.2.3.4]/", "form"),
    ("wss://" + "a" * 64 + ".example/", "form"),
    ("wss://" + "a." * 130 + "example/", "form"),
    ("wss://a..example/", "form"),
    ("wss://.example/", "form"),
    ("wss://user@ws.example.com/", "userinfo"),
    ("wss://user:pass@ws.example.com/", "userinfo"),
    ("wss://@ws.example.com/", "userinfo"),
    ("wss://ws.example.com:443@10.0.0.1/", "userinfo"),
    ("wss://ws.example.com\\@10.0.0.1/", "form"),
    ("wss://ws.example.com%40127.0.0.1/", "form"),
    ("wss://ws.example.com#@127.0.0.1/", "fragment"),
    ("wss://ws.example.com/#part", "fragment"),
    ("wss://ws.example.com/?#@127.0.0.1", "fragment"),
    ("wss://wß.example.com/", "form"),
    ("wss://\uff11\uff12\uff17.0.0.1/", "form"),
    ("wss://ws。example.com/", "form"),
    ("wss://127.0.0.1/", "address"),
    ("wss://127.0.0.1:6379/", "address"),
    ("wss://127.1/", "form"),
    ("wss://2130706433/", "form"),
    ("wss://0x7f000001/", "form"),
    ("wss://0x7f.1/", "form"),
    ("wss://0177.0.0.1/", "form"),
    ("wss://127.0.0.1./", "form"),
    ("wss://0/", "form"),
    ("wss://127.0.0.0x1/", "form"),
    ("wss://localhost/", "address"),
    ("wss://LOCALHOST./", "address"),
    ("wss://a.localhost/", "address"),
    ("wss://[::1]/", "address"),
    ("wss://[::]/", "address"),
    ("wss://[::ffff:169.254.169.254]/", "address"),
    ("wss://[fe80::1%25eth0]/", "form"),
    ("wss://169.254.169.254/latest/meta-data", "address"),
    ("wss://inside.example.com/", "address"),
    ("wss://half-inside.example.com/", "address"),
    ("wss://metadata.example.com/", "address"),
    ("wss://mapped.example.com/", "address"),
    ("wss://link.example.com/", "address"),
    ("wss://emulator:8787/", "address"),
    ("wss://vpn.example.com/", "address"),
    ("wss://mesh.example.com/", "address"),
    ("wss://198.18.0.7/", "address"),
]


async def resolve(host: str, port: int) -> list[str]:
    if host in ("localhost", "a.localhost"):
        return ["127.0.0.1"]
    if host not in NAMES:
        raise OSError("unknown name")
    return NAMES[host]


def egress(api_url: str = PUBLIC_API, *, hosts: str = "", proxies: Proxies | None = None) -> Egress:
    config = EgressConfig(api_url=api_url, hosts=read_patterns(hosts), proxies=proxies or Proxies())
    return Egress(config, resolve=resolve)


def started(ws_url: str = "wss://ws.example.com/secret", room_url: str = "") -> Started:
    return Started(session_id="s-1", ws_url=ws_url, room_url=room_url, viewer_token="t", max_duration_s=60)


async def cause(guard: Egress, session: Started) -> str:
    """The cause for which a session is refused; empty if it is not."""
    try:
        await guard.route(session, timeout_s=5)
    except UpstreamAddressRefused as error:
        said = f"{error} {error.metadata}"
        why = error.metadata["cause"]
    else:
        return ""
    for url in (session.ws_url, session.room_url):
        assert not url.strip() or url not in said
    return why


@pytest.mark.parametrize(
    ("addresses", "reach"), [(LOCAL, Reach.LOCAL), (NEVER, Reach.NEVER), (PUBLIC, Reach.PUBLIC)]
)
def test_the_network_of_an_address(addresses, reach):
    wrong = {one: found for one in addresses if (found := reach_of(ipaddress.ip_address(one))) is not reach}
    assert wrong == {}


@settings(max_examples=2000)
@given(st.ip_addresses())
def test_what_is_public_is_global_and_no_wrapped_address_is_more_public_than_itself(address):
    reach = reach_of(address)
    if address.version == 6 and address.ipv4_mapped is not None:
        # Python judges the outer address, which is reserved.
        address = address.ipv4_mapped
    if address.version == 4:
        mapped = ipaddress.IPv6Address(f"::ffff:{address}")
        assert reach_of(mapped) is reach
        behind_nat64 = reach_of(ipaddress.IPv6Address(f"64:ff9b::{address}"))
        assert behind_nat64 is (Reach.PUBLIC if reach is Reach.PUBLIC else Reach.NEVER)
    if reach is Reach.PUBLIC:
        assert address.is_global
        assert not any((address.is_private, address.is_loopback, address.is_link_local, address.is_multicast))
        assert not address.is_unspecified


@pytest.mark.parametrize(("url", "why"), BAD)
async def test_an_address_of_a_socket_that_is_not_safe_is_refused(url, why):
    assert await cause(egress(), started(url)) == why


@pytest.mark.parametrize("api_url", [LOCAL_API, "http://emulator:8787", "http://[::1]:8787", "https://10.1.1.1"])
@pytest.mark.parametrize(
    "url", ["ws://127.0.0.1:9/", "wss://10.0.0.1/", "ws://emulator:8787/x", "ws://localhost/", "ws://[fd00::1]/"]
)
async def test_a_gateway_whose_api_is_in_the_local_network_may_use_it(api_url, url):
    route = await egress(api_url).route(started(url, room_url="ws://127.0.0.1:7880"), timeout_s=5)
    assert route.addresses
    assert all(reach_of(ipaddress.ip_address(one)) is Reach.LOCAL for one in route.addresses)


@pytest.mark.parametrize("name", ["vpn.example.com", "mesh.example.com"])
async def test_where_a_name_server_answers_with_stand_ins_for_all_names_sessions_run(name, monkeypatch):
    monkeypatch.setitem(NAMES, "api.liveavatar.com", ["198.18.0.1"])
    session = started(f"wss://{name}/", room_url="wss://rooms.example.com")
    route = await egress().route(session, timeout_s=5)
    assert list(route.addresses) == NAMES[name]
    local = await egress(LOCAL_API).route(session, timeout_s=5)
    assert list(local.addresses) == NAMES[name]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        *BAD[: BAD.index(("wss://vpn.example.com/", "address"))],
        ("ws://vpn.example.com/", "scheme"),
        ("ws://198.18.0.7/", "scheme"),
        ("wss://half-mesh.example.com/", "address"),
        ("wss://broadcast.example.com/", "address"),
    ],
)
@pytest.mark.parametrize(
    "api", [["198.18.0.1"], ["::ffff:240.240.0.1", "2001:2::f0f0:1"], ["198.18.0.1", "10.0.0.1"]]
)
async def test_stand_ins_for_names_open_nothing_else(url, why, api, monkeypatch):
    monkeypatch.setitem(NAMES, "api.liveavatar.com", api)
    monkeypatch.setitem(NAMES, "half-mesh.example.com", ["240.240.0.7", "127.0.0.1"])
    guard = egress()
    assert await cause(guard, started(url)) == why
    await guard.learn()
    assert not guard.may_show_room("ws://127.0.0.1:7880")
    assert not guard.may_show_room("wss://198.18.0.7")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        *((url, why) for url, why in BAD if why in ("form", "userinfo", "fragment")),
        ("http://127.0.0.1/", "scheme"),
        ("javascript://127.0.0.1/%0aalert(1)", "scheme"),
        ("ws://169.254.169.254/", "address"),
        ("ws://[::ffff:169.254.169.254]/", "address"),
        ("ws://metadata.example.com/", "address"),
        ("ws://link.example.com/", "address"),
        ("ws://0.0.0.0/", "address"),
        ("ws://224.0.0.1/", "address"),
        ("ws://255.255.255.255/", "address"),
        ("ws://broadcast.example.com/", "address"),
        ("ws://[fd00:ec2::254]/", "address"),
    ],
)
async def test_a_local_api_excuses_no_trick_and_no_metadata(url, why):
    assert await cause(egress(LOCAL_API), started(url)) == why


@pytest.mark.parametrize(
    "api_url",
    ["http://api.liveavatar.com", "https://8.8.8.8", "https://half-inside.example.com", "http://169.254.1.1"],
)
async def test_an_api_that_is_not_in_the_local_network_opens_nothing(api_url):
    assert await cause(egress(api_url), started("wss://10.0.0.1/")) == "address"
    assert await cause(egress(api_url), started("ws://ws.example.com/")) == "scheme"


async def test_all_addresses_of_a_public_host_are_checked_and_used():
    route = await egress().route(started("WSS://WS.example.com.:8443/path?token=x"), timeout_s=5)
    assert (list(route.addresses), route.port) == (NAMES["ws.example.com"], 8443)
    assert "token=x" not in repr(route)


@pytest.mark.parametrize("url", ["wss://unknown.example.com/", "wss://empty.example.com/"])
async def test_a_name_without_addresses_is_no_refusal_and_is_tried_again(url):
    with pytest.raises(UpstreamUnreachable):
        await egress().route(started(url), timeout_s=5)
    await egress().check(started(url), timeout_s=5)


async def test_a_name_is_resolved_again_each_time():
    found = iter([["8.8.8.8"], ["127.0.0.1"]])

    async def rebind(host: str, port: int) -> list[str]:
        return next(found)

    guard = Egress(EgressConfig(api_url="https://8.8.8.8"), resolve=rebind)
    assert await cause(guard, started("wss://rebind.example.com/")) == ""
    assert await cause(guard, started("wss://rebind.example.com/")) == "address"


# --- proxies


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("wss://inside.example.com/", ""),
        ("wss://unknown.example.com/", ""),
        ("wss://10.0.0.1/", "address"),
        ("wss://localhost/", "address"),
        ("wss://[::ffff:127.0.0.1]/", "address"),
        ("wss://169.254.169.254/", "address"),
        ("ws://ws.example.com/", "scheme"),
        ("wss://direct.example.com/", "address"),
    ],
)
async def test_behind_a_proxy_which_resolves_names_the_address_itself_is_checked(url, why, monkeypatch):
    monkeypatch.setitem(NAMES, "direct.example.com", ["10.0.0.1"])
    proxies = Proxies.of({"ALL_PROXY": "http://proxy:3128", "NO_PROXY": "direct.example.com"})
    assert await cause(egress(proxies=proxies), started(url)) == why
    if not why:
        route = await egress(proxies=proxies).route(started(url), timeout_s=5)
        assert route.proxy is not None
        assert route.addresses == ()


# --- rooms


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("wss://rooms.example.com", ""),
        ("https://rooms.example.com/", ""),
        ("wss://unknown.example.com:7880/rtc", ""),
        ("", ""),
        ("javascript:alert(1)", "form"),
        ("JaVaScRiPt://x/%0aalert(1)", "scheme"),
        ("data:text/html,x", "form"),
        ("vbscript:x", "form"),
        ("ws://rooms.example.com", "scheme"),
        ("http://rooms.example.com", "scheme"),
        ("wss://user:pass@rooms.example.com", "userinfo"),
        ("wss://rooms.example.com\\@evil.example.com", "form"),
        ("wss://rooms.example.com#x", "fragment"),
        ('wss://rooms.example.com/"><script>', "form"),
        ("wss://127.0.0.1", "address"),
        ("wss://169.254.169.254", "address"),
        ("wss://localhost:7880", "address"),
    ],
)  # fmt: skip
async def test_an_address_of_a_room_that_a_browser_must_not_open_is_refused(url, why):
    guard = egress()
    assert await cause(guard, started(room_url=url)) == why
    assert guard.may_show_room(url) is (why == "")


async def test_rooms_without_tls_are_for_gateways_with_a_local_api():
    guard = egress("http://emulator:8787")
    assert not guard.may_show_room("ws://127.0.0.1:7880")
    await guard.learn()
    assert guard.may_show_room("ws://127.0.0.1:7880")
    assert not guard.may_show_room("ws://169.254.169.254")
    assert not guard.may_show_room("javascript:alert(1)")


async def test_an_api_that_cannot_be_resolved_at_the_start_is_found_out_later():
    guard = egress("http://later.example.com")
    await guard.learn()
    assert not guard.may_show_room("ws://127.0.0.1:7880")
    with pytest.raises(UpstreamUnreachable):
        await guard.route(started("ws://127.0.0.1/"), timeout_s=5)


class Silent:
    """Name server that does not answer before it is `awake`."""

    def __init__(self) -> None:
        self.asked = 0
        self.awake = asyncio.Event()

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked += 1
        await self.awake.wait()
        return ["127.0.0.1"]


async def test_adoptions_wait_once_in_all_for_a_name_server_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(module, "_LEARN_TIMEOUT_S", 0.05)
    server = Silent()
    guard = Egress(EgressConfig(api_url="http://emulator:8787"), resolve=server.resolve)
    for _ in range(3):
        await guard.learn()
    await asyncio.gather(*(guard.learn() for _ in range(3)))
    assert server.asked == 1
    assert not guard.may_show_room("ws://127.0.0.1:7880")
    # A session's own connection does not wait for that.
    server.awake.set()
    await guard.route(started("ws://127.0.0.1/"), timeout_s=5)
    assert guard.may_show_room("ws://127.0.0.1:7880")


async def test_adoptions_at_once_share_an_attempt_and_a_later_adoption_tries_again(monkeypatch):
    monkeypatch.setattr(module, "_LEARN_TIMEOUT_S", 0.05)
    monkeypatch.setattr(module, "_LEARN_AGAIN_S", 0.0)
    server = Silent()
    guard = Egress(EgressConfig(api_url="http://emulator:8787"), resolve=server.resolve)
    await guard.learn()
    server.awake.set()
    await asyncio.gather(*(guard.learn() for _ in range(3)))
    assert server.asked == 2
    assert guard.may_show_room("ws://127.0.0.1:7880")


async def test_an_adoption_that_is_cancelled_leaves_the_attempt_to_the_next():
    server = Silent()
    guard = Egress(EgressConfig(api_url="http://emulator:8787"), resolve=server.resolve)
    first = asyncio.create_task(guard.learn())
    second = asyncio.create_task(guard.learn())
    while not server.asked:
        await asyncio.sleep(0)
    first.cancel()
    server.awake.set()
    await second
    assert guard.may_show_room("ws://127.0.0.1:7880")


# --- narrowing


@pytest.mark.parametrize(
    ("host", "matches"),
    [
        ("ws.example.com", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("notexample.org", False),
        ("ws.example.com.evil.com", False),
        ("ws-example.com", False),
        ("8.8.8.8", True),
        ("2001:4860::1", True),
    ],
)
def test_patterns_match_hosts_and_subdomains(host, matches):
    patterns = read_patterns("WS.example.com, *.example.org 8.8.8.8,[2001:4860::1]")
    assert is_listed(host, patterns) is matches


@pytest.mark.parametrize("text", ["*", "*.", "https://x.com", "x.com/", "x y@z", "*x.com", "a.*.com", "x.com:443"])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(ValueError, match="is not a host"):
        read_patterns(text)


async def test_hosts_that_are_not_listed_are_refused_and_listed_ones_checked_all_the_same():
    guard = egress(hosts="*.example.com")
    assert await cause(guard, started("wss://ws.example.com/")) == ""
    assert await cause(guard, started("wss://8.8.8.8/")) == "host_not_listed"
    assert await cause(guard, started("wss://inside.example.com/")) == "address"
    assert await cause(guard, started(room_url="wss://rooms.example.net")) == "host_not_listed"
    assert not guard.may_show_room("wss://rooms.example.net")


# --- forms


@settings(max_examples=2000)
@given(st.text(alphabet="ws:/@#?\\[]%.:0127xlocahst \t\n-_é。", max_size=40).map(lambda rest: f"wss://{rest}"))
def test_parsers_agree_on_each_address_that_is_accepted(url):
    try:
        target = read_target(url)
    except Malformed:
        return
    parts = urlsplit(url)
    assert (parts.hostname or "").removesuffix(".") == target.host
    assert (parts.port or 443) == target.port
    assert parts.username is None
    assert parts.fragment == ""
    assert url.isascii()
    assert "\\" not in url


@given(st.text(max_size=60))
def test_no_text_breaks_the_checks(text):
    with contextlib.suppress(Malformed):
        read_target(text)
    reach_of_host(text)
    is_listed(text, ("*.example.com",))


@pytest.mark.parametrize(
    ("room_url", "why"),
    [
        ("wss://ws.example.com/", ""),
        ("wss://10.0.0.1/", "address"),
        ("ws://ws.example.com/", "scheme"),
        ("wss://half-mesh.example.com/", "address"),
    ],
)
async def test_the_gateway_itself_joins_rooms_on_public_hosts_alone(room_url, why, monkeypatch):
    monkeypatch.setitem(NAMES, "half-mesh.example.com", ["240.240.0.7", "127.0.0.1"])
    session = started(room_url=room_url)
    if not why:
        await egress().check_room(session, timeout_s=5)
        return
    with pytest.raises(UpstreamAddressRefused) as refused:
        await egress().check_room(session, timeout_s=5)
    assert refused.value.metadata["cause"] == why


async def test_a_room_whose_name_server_does_not_answer_is_not_joined():
    async def never(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    guard = Egress(EgressConfig(api_url=PUBLIC_API), resolve=never)
    with pytest.raises(UpstreamUnreachable):
        await guard.check_room(started(room_url="wss://rooms.example.com"), timeout_s=0.05)


async def test_of_a_session_without_a_socket_the_room_is_checked():
    await egress().check(started(ws_url="", room_url="wss://rooms.example.com"), timeout_s=5)
    with pytest.raises(UpstreamAddressRefused) as refused:
        await egress().check(started(ws_url="", room_url="wss://169.254.169.254"), timeout_s=5)
    assert refused.value.metadata["address"] == "livekit_url"
