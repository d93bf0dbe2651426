"""Tests of the load suite as a whole. Each loads both cores: one after the other, and beside nothing else."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
