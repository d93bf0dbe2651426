"""Addresses of gateways and credentials for them on the command line, and next steps of errors."""

from pathlib import Path

import click
import grpc
import pytest
from click.testing import CliRunner

from liveavatar.gateway import (
    CapacityExhausted,
    ConnectionLost,
    CredentialInvalid,
    CredentialMissing,
    DeadlineExceeded,
    GatewayError,
    PlaintextRefused,
    RoleMissing,
    TokenUnavailable,
    Unauthenticated,
)
from liveavatar_gateway.cli.connection import Target, connection_options, explanation
from testkit.certificates import make_certificate

SEEN: list[Target] = []


@click.command()
@connection_options
def command(target: Target) -> None:
    click.echo(target.address)
    SEEN.append(target)


def invoke(*arguments: str, **variables: str) -> tuple[int, str]:
    SEEN.clear()
    result = CliRunner(env=variables).invoke(command, arguments)
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def run(address: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, ["--address", address])
    return result.exit_code, result.output


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / name for name in ("key", "token")}
    for path in made.values():
        path.write_text("lag_text\n")
    return made


@pytest.mark.parametrize("address", ["localhost:1", "[::1]:1", "a:1,b:2", "dns:///gateway:443"])
def test_usable_addresses_are_accepted(address):
    assert run(address) == (0, f"{address}\n")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "is not HOST:PORT"),
        ("a:1,", "is not HOST:PORT"),
        ("::1:50051", "[::1]:50051"),
        ("fe80::1", "needs brackets"),
    ],
)
def test_an_unusable_address_is_refused(address, words):
    code, output = run(address)
    assert code == 2
    assert words in " ".join(output.replace("│", " ").split())


def test_an_error_has_its_reason_and_the_next_step():
    lines = explanation(CapacityExhausted("all in use", retry_after=2.0), "g:1")
    assert lines[0].endswith("all in use")
    assert lines[-1] == "retry in 2 s"


@pytest.mark.parametrize(("retry_after", "shown"), [(0.03, "1 s"), (4.3469, "5 s"), (42019.9, "11 h 40 min")])
def test_the_time_of_a_retry_is_for_people(retry_after, shown):
    assert explanation(CapacityExhausted("all in use", retry_after=retry_after), "g:1")[-1] == f"retry in {shown}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Tls handshake failed: CERTIFICATE_VERIFY_FAILED", "--ca FILE names the authority"),
        ("UNAUTHENTICATED: Hostname Verification Check failed.", "a host that the certificate names"),
        ("UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed", "--client-cert"),
        ("Connection refused", "--ca FILE or --tls"),
    ],
)
def test_a_lost_connection_has_the_next_step_of_its_cause(text, words):
    assert words in explanation(ConnectionLost(text), "g:1")[-1]


def test_a_call_to_the_wrong_port_names_both_ports():
    lines = explanation(GatewayError("Method not found!", code=grpc.StatusCode.UNIMPLEMENTED), "g:1")
    assert lines[0] == "g:1 does not serve this call: Method not found!"
    assert "GATEWAY_ADMIN_PORT" in lines[1]


def test_a_gateway_that_does_not_answer_is_named():
    assert explanation(ConnectionLost("refused"), "g:1")[0] == "no gateway answers on g:1: refused"
    assert explanation(DeadlineExceeded("late"), "g:1")[0] == "g:1 did not answer in time: late"


def test_a_credential_comes_from_a_file_or_the_environment(files):
    assert invoke() == (0, "127.0.0.1:50051")
    assert SEEN[0].arguments() == {"credentials": None, "tls": False, "allow_plaintext": False}
    by_token = ["--token-file", str(files["token"])]
    for arguments, variables, expected in [
        (["--api-key-file", str(files["key"])], {}, files["key"]),
        (by_token, {}, files["token"]),
        ([], {"LIVEAVATAR_GATEWAY_KEY": "lag_text"}, "lag_text"),
        ([], {"LIVEAVATAR_GATEWAY_KEY_FILE": str(files["key"])}, files["key"]),
        ([], {"LIVEAVATAR_GATEWAY_TOKEN_FILE": str(files["token"])}, files["token"]),
        (by_token, {"LIVEAVATAR_GATEWAY_KEY": "lag_text"}, files["token"]),
        (
            ["--token-file", str(files["token"])],
            {"LIVEAVATAR_GATEWAY_KEY_FILE": str(files["key"])},
            files["token"],
        ),
    ]:
        assert invoke(*arguments, **variables)[0] == 0
        assert SEEN[0].credential == expected
        assert "lag_text" not in repr(SEEN[0])


def test_two_credentials_are_refused(files):
    code, output = invoke("--api-key-file", str(files["key"]), "--token-file", str(files["token"]))
    assert (code, "only one of --api-key-file, --token-file" in output) == (2, True)
    code, output = invoke(LIVEAVATAR_GATEWAY_KEY="a", LIVEAVATAR_GATEWAY_KEY_FILE=str(files["key"]))
    assert (code, "LIVEAVATAR_GATEWAY_KEY_FILE" in output) == (2, True)


def test_no_option_takes_a_secret():
    """Other users of a machine see the command lines of its processes."""
    secrets = [option.name for option in command.params if option.name and "key" in option.name]
    assert secrets == ["api_key_file", "client_key"]


def test_certificates_are_checked_before_a_call(tmp_path, capsys):
    certificate, key = make_certificate(tmp_path)
    options = ["--ca", str(certificate), "--client-cert", str(certificate), "--client-key", str(key)]
    assert invoke(*options)[0] == 0
    tls = SEEN[0].arguments()["tls"]
    assert (tls.ca_file, tls.certificate_file, tls.key_file) == (certificate, certificate, key)
    assert invoke("--client-cert", str(certificate))[0] == 0
    with pytest.raises(SystemExit):
        SEEN[0].arguments()
    assert "both" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CredentialMissing("no credential"), "--api-key-file FILE"),
        (CredentialInvalid("revoked"), "keys list"),
        (RoleMissing("needs the role control"), "keys make"),
        (PlaintextRefused("tls=True"), "--tls or --ca FILE"),
        (Unauthenticated("no token"), "a proxy"),
    ],
)
def test_a_refused_caller_learns_the_next_step(error, words):
    assert words in explanation(error, "g:1")[-1]


def test_an_unusable_file_of_a_credential_is_named():
    error = TokenUnavailable("failed")
    error.__cause__ = ValueError("/run/key is empty")
    assert "/run/key is empty" in explanation(error, "g:1")[0]
