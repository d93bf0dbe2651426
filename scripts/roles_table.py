"""Table of RPCs and roles in docs/authentication.md, from the rules of the code. `--check` compares only."""

import sys
from pathlib import Path
from typing import Final

from liveavatar_gateway.auth.principal import RULES, Role

START: Final = "<!-- roles:"
END: Final = "<!-- end of roles -->"


def table() -> str:
    """Return the table, with a line for each RPC."""
    rows = ["| RPC | " + " | ".join(Role) + " |", "|---" * (len(Role) + 1) + "|"]
    for method, rule in RULES.items():
        service, _, name = method.rpartition("/")
        marks = ["yes" if role in rule else "" for role in Role]
        rows.append(f"| `{service.rpartition('.')[2]}.{name}` | " + " | ".join(marks) + " |")
    return "\n".join(rows)


def replaced(text: str) -> str:
    """Return a document with the table between its marks."""
    before, _, rest = text.partition(START)
    mark, _, rest = rest.partition("\n")
    _, _, after = rest.partition(END)
    return f"{before}{START}{mark}\n{table()}\n{END}{after}"


def main() -> None:
    """Write the table, or compare it."""
    *options, name = sys.argv[1:]
    path = Path(name)
    text = path.read_text()
    if "--check" in options:
        if replaced(text) != text:
            sys.exit(f"{path}: the table of roles differs from auth/principal.py; run `make settings-table`")
        return
    path.write_text(replaced(text))


if __name__ == "__main__":
    main()
