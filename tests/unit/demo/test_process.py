"""The demo's servers see nothing of what the caller's shell has set for others."""

from liveavatar_demo.process import clean_environment


def test_settings_and_proxies_of_the_shell_are_left_out():
    environment = {
        "PATH": "/bin",
        "GATEWAY_PORT": "1",
        "EMULATOR_SPEED": "9",
        "LIVEAVATAR_API_KEY": "secret",
        "http_proxy": "http://proxy",
        "HTTPS_PROXY": "http://proxy",
        "GRPC_EXPERIMENTS": "-event_engine_listener",
    }
    assert clean_environment(environment) == {"PATH": "/bin", "GRPC_EXPERIMENTS": "-event_engine_listener"}
