"""Generate the Python stubs from `proto/`: `make proto` writes them, `make check` compares them.

Runs in the environment of requirements/stubs.txt, which has the oldest generator that the client supports: stubs
refuse a runtime that is older than their generator.

Usage: generate_stubs.py OUTPUT_DIR [--check COMMITTED_DIR]
"""

import argparse
import filecmp
import sys
from pathlib import Path

from grpc_tools import protoc

_ROOT = Path(__file__).resolve().parent.parent
_PROTO = _ROOT / "proto"
_GOOGLE = _ROOT / "third_party/googleapis"
_PACKAGE = Path("liveavatar/gateway/v1")


def generate(output: Path) -> None:
    """Write message, service and type stubs below `output`."""
    output.mkdir(parents=True, exist_ok=True)
    well_known = Path(protoc.__file__).parent / "_proto"
    sources = sorted(str(path.relative_to(_PROTO)) for path in _PROTO.rglob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={_PROTO}",
        f"--proto_path={_GOOGLE}",
        f"--proto_path={well_known}",
        f"--python_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_out=quiet:{output}",
        f"--mypy_grpc_out=quiet:{output}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        sys.exit("generate_stubs: protoc failed; run `make proto`, which has the plugins on PATH")
    (output / _PACKAGE / "__init__.py").touch()


def differences(fresh: Path, committed: Path) -> list[str]:
    """Return the names of stubs that are missing, obsolete or different."""
    names = {path.name for folder in (fresh, committed) for path in folder.iterdir() if path.is_file()}
    return sorted(
        name
        for name in names
        if not ((fresh / name).is_file() and (committed / name).is_file())
        or not filecmp.cmp(fresh / name, committed / name, shallow=False)
    )


def main() -> None:
    """Parse the command line, generate, and compare on request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder to write the stubs to")
    parser.add_argument("--check", type=Path, metavar="DIR", help="fail if the stubs in DIR are stale")
    options = parser.parse_args()
    generate(options.output)
    if options.check and (stale := differences(options.output / _PACKAGE, options.check / _PACKAGE)):
        sys.exit(f"generate_stubs: stale stubs, run `make proto`: {', '.join(stale)}")


if __name__ == "__main__":
    main()
