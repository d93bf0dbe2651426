"""Settings of the gateway: environment `GATEWAY_*`, an optional TOML file, and flags."""

from liveavatar_gateway.config.loading import load
from liveavatar_gateway.config.secrets import read_secret
from liveavatar_gateway.config.settings import PREFIX, ConfigError, Settings

__all__ = ["PREFIX", "ConfigError", "Settings", "load", "read_secret"]
