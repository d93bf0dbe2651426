"""Paths of the checkout that the tests belong to."""

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PYTHONPATH: Final = os.pathsep.join(
    str(ROOT / folder) for folder in ("server", "clients/python", "demo", "loadtest", "")
)
"""Value of the environment variable under which a child process finds every package of the checkout."""
