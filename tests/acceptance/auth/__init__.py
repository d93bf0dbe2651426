"""Proof of access control: who may do what, at whose cost, and what it costs."""

from acceptance.auth.cost import COST
from acceptance.auth.matrix import MATRIX
from acceptance.auth.money import MONEY
from acceptance.auth.rotation import ROTATION
from acceptance.auth.sharing import SHARING
from acceptance.auth.suspension import SUSPENSION

LINES = (MATRIX, SHARING, MONEY, ROTATION, SUSPENSION, *COST)
"""Lines in the order in which they run."""
