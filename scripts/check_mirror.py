"""Check that tests/unit mirrors the packages: `make mirror`.

A module `x.py` with logic has `test_x.py` at the mirrored path, or an entry in tests/unit/mirror.toml that names a
test and a reason. A test module `test_x.py`, or `test_x_theme.py`, has a module `x.py` at the mirrored path, or an
entry that names the modules under test. An entry that is no longer needed fails the check.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = {
    "server/liveavatar_gateway": "tests/unit",
    "server/liveavatar_emulator": "tests/unit/emulator",
    "clients/python/liveavatar/gateway": "tests/unit/client",
    "demo/liveavatar_demo": "tests/unit/demo",
    "loadtest": "tests/unit/loadtest",
    "scripts": "tests/unit/scripts",
}
"""Folders of modules, and the folders of their tests; of two that match, the first counts."""
GENERATED: Final = "clients/python/liveavatar/gateway/v1/"


def main() -> int:
    """Print every difference; 0 when there is none."""
    entries = tomllib.loads((ROOT / "tests/unit/mirror.toml").read_text(encoding="utf-8"))
    modules = _modules()
    tests = {_relative(path) for path in (ROOT / "tests/unit").rglob("test_*.py")}
    found = differences(modules, tests, entries.get("covered_by", {}), entries.get("themes", {}))
    for each in found:
        sys.stdout.write(f"mirror: {each}\n")
    return 1 if found else 0


def differences(
    modules: dict[str, bool],
    tests: set[str],
    covered_by: dict[str, Sequence[str]],
    themes: dict[str, Sequence[str]],
    root: Path = ROOT,
) -> list[str]:
    """Compare modules and tests.

    Args:
        modules: Path of each module, and whether the module has logic.
        tests: Paths of the unit tests.
        covered_by: Module without a mirror: path of the test that covers the module, and a reason.
        themes: Test without a module of the same name: paths of the modules under test.
        root: Folder of the checkout.
    """
    mirrors = {mirror: module for module in modules if (mirror := mirror_of(module)) is not None}
    mirrored = {mirrors[owner] for test in tests if (owner := _owner(test, mirrors)) is not None}
    dead = {test for test in tests if _owner(test, mirrors) is None}
    bare = {module for module, has_logic in modules.items() if has_logic and module not in mirrored}
    found = [f"{test} has no module of its name; rename or delete the test" for test in dead - set(themes)]
    found += [f"{module} has no {mirror_of(module)}" for module in bare - set(covered_by)]
    found += [f"the entry of {test} is not needed" for test in set(themes) - dead]
    found += [f"the entry of {module} is not needed" for module in set(covered_by) - bare]
    for test, targets in themes.items():
        found += [f"{test} names {target}, which does not exist" for target in targets if target not in modules]
    for module, (test, _) in covered_by.items():
        if not (root / test).exists():
            found.append(f"{module} names {test}, which does not exist")
    return sorted(found)


def mirror_of(module: str) -> str | None:
    """Return the path of a module's unit test; None outside the mirrored packages."""
    for package, folder in PACKAGES.items():
        if module.startswith(f"{package}/"):
            path = Path(folder, module.removeprefix(f"{package}/"))
            name = path.parent.name if path.stem == "__init__" else path.stem.strip("_")
            return path.with_name(f"test_{name}.py").as_posix()
    return None


def has_logic(source: str) -> bool:
    """Return whether a module has a function that does more than declare a signature."""
    return any(
        not all(_is_declaration(statement) for statement in node.body)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def _is_declaration(statement: ast.stmt) -> bool:
    """Return whether a statement is a docstring, `...` or `pass`."""
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass)


def _owner(test: str, mirrors: dict[str, str]) -> str | None:
    """Return the mirror that a test is or extends by a theme; the longest name counts."""
    words = Path(test).stem.split("_")
    for count in range(len(words), 1, -1):
        path = Path(test).with_name("_".join(words[:count]) + ".py").as_posix()
        if path in mirrors:
            return path
    return None


def _modules() -> dict[str, bool]:
    return {_relative(path): has_logic(path.read_text(encoding="utf-8")) for path in _sources()}


def _sources() -> Iterator[Path]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if not _relative(path).startswith(GENERATED):
                yield path


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


if __name__ == "__main__":
    sys.exit(main())
