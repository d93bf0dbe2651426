"""Compile `proto/` into an image for `buf lint` and `buf breaking`.

An image holds descriptors, comments and imports, so buf needs neither a network nor a registry of its own.

Usage: proto_image.py OUTPUT [--proto DIR | --ref GIT_REF]
"""

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import google.rpc
from grpc_tools import protoc

_ROOT = Path(__file__).resolve().parent.parent


def build(proto: Path, output: Path) -> None:
    """Write the image of every `.proto` file below `proto` to `output`."""
    output.parent.mkdir(parents=True, exist_ok=True)
    common_protos = Path(next(iter(google.rpc.__path__))).parent.parent
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"--proto_path={proto}",
        f"--proto_path={common_protos}",
        f"--proto_path={well_known}",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={output}",
        *sorted(str(path.relative_to(proto)) for path in proto.rglob("*.proto")),
    ]
    if protoc.main(arguments) != 0:
        sys.exit(f"proto_image: protoc refused the files in {proto}")


def build_ref(ref: str, output: Path) -> None:
    """Write the image of `proto/` as it was at a git commit or tag."""
    archive = subprocess.run(
        ["git", "-C", str(_ROOT), "archive", "--format=tar", ref, "proto"], check=True, capture_output=True
    ).stdout
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
        build(Path(folder) / "proto", output)


def main() -> None:
    """Parse the command line and build one image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="file to write the image to")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--proto", type=Path, default=_ROOT / "proto", metavar="DIR", help="default: proto/")
    source.add_argument("--ref", help="take proto/ from this commit or tag")
    options = parser.parse_args()
    if options.ref:
        build_ref(options.ref, options.output)
    else:
        build(options.proto, options.output)


if __name__ == "__main__":
    main()
