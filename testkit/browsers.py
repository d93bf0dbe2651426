"""Chromium for tests: the installed program, and the options under which it stays on this machine."""

import os
import shutil
from typing import Final

_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS: Final = (
    "--no-sandbox",  # tests may run as root, where Chromium has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # It would look its maker's hosts up.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Media stay on 127.0.0.1, which Chromium does not offer by itself.
    "--allow-loopback-in-peer-connection",
)
HEARS: Final = "--autoplay-policy=no-user-gesture-required"


class BrowserMissing(RuntimeError):
    """Program not found; the message has the command that installs it."""


def chromium() -> str:
    """Return the path of the browser that CHROMIUM names, else of the first on PATH.

    Raises:
        BrowserMissing: there is none.
    """
    named = os.environ.get("CHROMIUM")
    for name in [named] if named else _PROGRAMS:
        if found := shutil.which(name):
            return found
    raise BrowserMissing(
        f"CHROMIUM={named} is no program; correct it or unset it"
        if named
        else "no Chromium on PATH; on Debian and Ubuntu: apt install chromium; on macOS name yours: "
        'CHROMIUM="/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" make test'
    )
