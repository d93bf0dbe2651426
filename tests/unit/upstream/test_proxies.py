"""Choice of the proxy, for REST and command sockets alike, as in other programs."""

import pytest

from liveavatar_gateway.upstream.proxies import Proxies, UnusableProxy

API = "https://api.liveavatar.com"
SOCKET = "wss://media.example/socket"


def url_of(environment: dict[str, str], url: str) -> str | None:
    proxy = Proxies.of(environment).of_url(url)
    return None if proxy is None else proxy.url


@pytest.mark.parametrize(
    ("environment", "secure", "plain"),
    [
        ({}, None, None),
        ({"HTTPS_PROXY": "http://a:1"}, "http://a:1", None),
        ({"HTTP_PROXY": "http://a:1"}, None, "http://a:1"),
        ({"ALL_PROXY": "http://a:1"}, "http://a:1", "http://a:1"),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "http://b:2", "http://a:1"),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "http://a:1", None),
        ({"https_proxy": "", "HTTPS_PROXY": "http://b:2"}, None, None),
        ({"all_proxy": "proxy:3128"}, "http://proxy:3128", "http://proxy:3128"),
        ({"HTTPS_PROXY": " http://a:1 "}, "http://a:1", None),
    ],
)
def test_rest_and_socket_take_the_same_proxy(environment, secure, plain):
    assert url_of(environment, API) == url_of(environment, SOCKET) == secure
    assert url_of(environment, "http://127.0.0.1:80") == url_of(environment, "ws://127.0.0.1:80/s") == plain


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("*", API, True),
        ("liveavatar.com", API, True),
        (".liveavatar.com", API, True),
        ("*.liveavatar.com", API, True),
        ("api.liveavatar.com", API, True),
        ("API.LiveAvatar.COM", API, True),
        ("avatar.com", API, False),
        ("other.example, api.liveavatar.com", API, True),
        ("other.example api.liveavatar.com", API, True),
        ("api.liveavatar.com:443", API, True),
        ("api.liveavatar.com:8443", API, False),
        ("media.example", SOCKET, True),
        ("10.0.0.0/8", "wss://10.1.2.3/s", True),
        ("10.0.0.0/8", "wss://11.1.2.3/s", False),
        ("10.1.2.3", "wss://10.1.2.3/s", True),
        ("2.3", "wss://10.1.2.3/s", False),
        ("127.0.0.1:9", "wss://127.0.0.1:9/s", True),
        ("127.0.0.1:9", "wss://127.0.0.1:8/s", False),
        ("::1", "wss://[::1]:9/s", True),
        ("[::1]:9", "wss://[::1]:9/s", True),
        ("[::1]:9", "wss://[::1]:8/s", False),
        ("fd00::/8", "wss://[fd00::1]/s", True),
        (",, ,", API, False),
        (".", API, False),
    ],
)
def test_hosts_of_no_proxy_are_reached_directly(no_proxy, url, is_direct):
    assert (url_of({"HTTPS_PROXY": "http://a:1", "NO_PROXY": no_proxy}, url) is None) is is_direct


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://a:1",
        "socks5h://a:1",
        "socks4://a:1",
        "ftp://a:1",
        "http://",
        "http://a:99999",
        "http://a:port",
        "http://[a",
        "http://a:1/path",
        "http://user@a:1",
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
def test_a_proxy_that_cannot_be_used_is_refused_by_name_and_without_its_password(variable, proxy):
    proxy = proxy.replace("://a", "://user:secret@a")
    with pytest.raises(UnusableProxy, match=variable.upper()) as refused:
        Proxies.of({variable: proxy}).check(API)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("environment", "api_url"),
    [
        ({"HTTP_PROXY": "socks5://a:1"}, API),
        ({"HTTPS_PROXY": "HTTP://a:1"}, API),
        ({"HTTPS_PROXY": "https://user:word@[::1]:1/"}, API),
        ({"ALL_PROXY": "socks5://a:1", "HTTPS_PROXY": "http://a:1"}, API),
        ({"ALL_PROXY": "socks5://a:1", "NO_PROXY": "*"}, API),
        ({"ALL_PROXY": "socks5://a:1", "NO_PROXY": "127.0.0.1"}, "http://127.0.0.1:8900"),
    ],
)
def test_a_proxy_that_can_be_used_or_is_not_needed_is_taken(environment, api_url):
    Proxies.of(environment).check(api_url)


def test_a_proxy_that_only_sockets_would_need_is_looked_at_too():
    with pytest.raises(UnusableProxy):
        Proxies.of({"ALL_PROXY": "socks5://a:1", "NO_PROXY": "api.liveavatar.com"}).check(API)


def test_credentials_are_not_shown():
    proxy = Proxies.of({"HTTPS_PROXY": "http://user:secret@proxy:3128"}).of_url(API)
    assert proxy.shown == "http://***@proxy:3128 (HTTPS_PROXY)"
    assert "secret" not in repr(proxy)
