"""Tests of the load suite as a whole."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
