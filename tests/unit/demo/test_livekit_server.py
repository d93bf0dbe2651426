"""Choice of the LiveKit server, and its configuration."""

import ipaddress
import stat
from pathlib import Path

import pytest

from liveavatar_demo.livekit_server import (
    VERSION,
    LiveKitServer,
    Ports,
    ServerMissing,
    cached_program,
    find_program,
    loopback_configuration,
)
from liveavatar_demo.process import Process


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_named_program_goes_before_the_cached_one_and_that_before_the_path(tmp_path):
    named = program(tmp_path / "named" / "my-livekit")
    on_path = program(tmp_path / "path" / "livekit-server")
    environment = {
        "LIVEKIT_SERVER": str(named),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PATH": str(on_path.parent),
    }
    cached = program(cached_program(environment))
    assert find_program(environment) == named
    del environment["LIVEKIT_SERVER"]
    assert find_program(environment) == cached
    cached.unlink()
    assert find_program(environment) == on_path


def test_the_cache_is_one_file_for_each_version_below_the_users_caches():
    assert cached_program({"HOME": "/home/ann"}) == Path(
        f"/home/ann/.cache/liveavatar-gateway/livekit-server-{VERSION}"
    )
    assert cached_program({"HOME": "/home/ann", "XDG_CACHE_HOME": "/var/caches"}).parent == Path(
        "/var/caches/liveavatar-gateway"
    )


def test_a_missing_program_is_an_error_with_the_command_that_brings_it(tmp_path):
    with pytest.raises(ServerMissing, match="make livekit-server"):
        find_program({"HOME": str(tmp_path), "PATH": str(tmp_path)})


def test_a_name_that_is_no_program_is_an_error_and_not_passed_over(tmp_path):
    environment = {"LIVEKIT_SERVER": str(tmp_path / "typo"), "XDG_CACHE_HOME": str(tmp_path)}
    program(cached_program(environment))
    with pytest.raises(ServerMissing, match=r"LIVEKIT_SERVER=.*typo"):
        find_program(environment)


def test_no_address_in_the_configuration_leads_away_from_this_machine():
    ports = Ports(signal_tcp=1001, media_udp=1002, media_tcp=1003)
    configuration = loopback_configuration(ports, key="key", secret="x" * 32)
    rtc = configuration["rtc"]
    stun_hosts = [address.split(":")[0] for address in rtc["stun_servers"]]
    hosts = [*configuration["bind_addresses"], rtc["node_ip"], *stun_hosts]
    assert len(hosts) == 3
    assert all(ipaddress.ip_address(host).is_loopback for host in hosts)
    assert (configuration["port"], rtc["udp_port"], rtc["tcp_port"]) == (1001, 1002, 1003)
    assert rtc["use_external_ip"] is False


def test_the_secret_is_not_shown(tmp_path):
    process = Process("livekit-server", [], folder=tmp_path, environment={})
    server = LiveKitServer(url="ws://127.0.0.1:1", api_key="key", api_secret="hush", process=process)
    assert "hush" not in repr(server)
