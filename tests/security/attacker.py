"""`python -m security.attacker MODULE NAME ADDRESS SECONDS`: one attack in a process; prints its counts."""

import asyncio
import importlib
import sys


def main(module: str, name: str, address: str, seconds: float) -> None:
    """Attack, and print what came of it."""
    attack = getattr(importlib.import_module(f"security.attacks.{module}"), name)
    sys.stdout.write(asyncio.run(attack(address, seconds)).dumps())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
