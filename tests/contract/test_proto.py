"""The contract: fresh stubs, reasons that agree everywhere, documented fields; deployments and links that hold."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from liveavatar.gateway.v1 import errors_pb2
from liveavatar_gateway.core import errors

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
STUBS = Path("liveavatar/gateway/v1")
TOOLS = Path(sys.executable).parent

IMPORT_STUBS = """
import sys
import grpc
from liveavatar.gateway.v1 import audio_service_pb2_grpc, session_service_pb2_grpc
audio_service_pb2_grpc.AudioServiceStub(grpc.insecure_channel("127.0.0.1:1"))
session_service_pb2_grpc.SessionServiceStub(grpc.insecure_channel("127.0.0.1:1"))
strangers = {"liveavatar_gateway", "liveavatar_emulator", "pydantic", "httpx", "numpy"} & set(sys.modules)
assert not strangers, strangers
"""


def run(*arguments, **options):
    path = {"PATH": f"{TOOLS}:/usr/local/bin:/usr/bin:/bin"} | options.pop("env", {})
    return subprocess.run(
        [str(argument) for argument in arguments],
        cwd=ROOT,
        env=path,
        text=True,
        capture_output=True,
        timeout=50,
        check=False,
        **options,
    )


def script(name, *arguments):
    finished = run(sys.executable, ROOT / "scripts" / name, *arguments)
    assert finished.returncode == 0, finished.stderr
    return finished


def image(output, *arguments):
    script("proto_image.py", output, *arguments)
    return output


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stubs")
    script("generate_stubs.py", folder)
    return folder


@pytest.fixture
def altered_proto(tmp_path):
    """Copies `proto/` and replaces what a pattern matches in one of its files."""

    def alter(name, pattern, new):
        folder = tmp_path / "proto"
        for source in PROTO.rglob("*.proto"):
            copy = folder / source.relative_to(PROTO)
            copy.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text()
            if source.name == name:
                text, count = re.subn(pattern, new, text, flags=re.DOTALL)
                assert count == 1
            copy.write_text(text)
        return folder

    return alter


@pytest.fixture(scope="module")
def present(tmp_path_factory):
    """The image of `proto/` as it is."""
    return image(tmp_path_factory.mktemp("image") / "present.binpb")


class TestStubs:
    def test_committed_stubs_equal_fresh_ones(self, stubs):
        """A change of a .proto file without `make proto` fails."""
        fresh = {path.name: path.read_text() for path in (stubs / STUBS).glob("*") if path.is_file()}
        committed = {
            path.name: path.read_text() for path in (ROOT / "clients/python" / STUBS).glob("*") if path.is_file()
        }
        assert fresh.keys() == committed.keys()
        assert [name for name in fresh if fresh[name] != committed[name]] == []

    def test_check_mode_names_a_stale_stub(self, stubs, tmp_path):
        committed = tmp_path / "committed"
        (committed / STUBS).mkdir(parents=True)
        for path in (stubs / STUBS).glob("*.py*"):
            (committed / STUBS / path.name).write_text(path.read_text())
        (committed / STUBS / "audio_pb2.py").write_text("stale")
        finished = run(
            sys.executable, ROOT / "scripts/generate_stubs.py", tmp_path / "fresh", "--check", committed
        )
        assert finished.returncode != 0
        assert "audio_pb2.py" in finished.stderr
        assert "make proto" in finished.stderr

    def test_stubs_need_nothing_but_grpcio_and_the_common_protos(self, stubs):
        finished = run(sys.executable, "-W", "error", "-c", IMPORT_STUBS, env={"PYTHONPATH": str(stubs)})
        assert finished.returncode == 0, finished.stderr


class TestReasons:
    @staticmethod
    def in_proto():
        return {
            name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name
        } - {"UNSPECIFIED"}

    @staticmethod
    def in_code():
        """Reason to the classes that declare it themselves."""
        declared = {}
        for _, found in inspect.getmembers(errors, inspect.isclass):
            if issubclass(found, errors.GatewayError) and found is not errors.GatewayError:
                reason = vars(found).get("reason")
                if reason is not None:
                    declared.setdefault(reason, []).append(found.__name__)
        return declared

    @staticmethod
    def in_docs():
        """Reason to status and details, from the tables of docs/errors.md."""
        rows = re.findall(
            r"^\| ([A-Z_]+) \| ([A-Z_]+) \| ([A-Za-z, ]*)\| (.+) \|$",
            (ROOT / "docs/errors.md").read_text(),
            flags=re.MULTILINE,
        )
        assert len({row[0] for row in rows}) == len(rows), "a reason has two rows"
        return {
            reason: (status, tuple(filter(None, details.strip().split(", "))))
            for reason, status, details, _ in rows
        }

    @staticmethod
    def in_comments():
        """Reason to status and details, from the comments of errors.proto."""
        rows = re.findall(
            r"// ([A-Z_]+)((?: \+ \w+)*)\. [^=]*?\n  ERROR_REASON_([A-Z_]+) = \d+;",
            (PROTO / STUBS / "errors.proto").read_text(),
        )
        return {reason: (status, tuple(filter(None, details.split(" + ")))) for status, details, reason in rows}

    def test_every_reason_has_one_class(self):
        classes = self.in_code()
        assert classes.keys() == self.in_proto()
        assert {reason: names for reason, names in classes.items() if len(names) != 1} == {}

    def test_every_class_that_can_be_raised_has_a_reason(self):
        groups = {"CallerError", "CapacityError", "OwnershipError", "UpstreamError"}
        found = {
            name
            for name, found in inspect.getmembers(errors, inspect.isclass)
            if issubclass(found, errors.GatewayError) and "reason" not in vars(found)
        }
        assert found == groups

    def test_every_reason_has_a_row_in_the_documentation(self):
        assert self.in_docs().keys() == self.in_proto()

    def test_documentation_and_contract_name_the_same_status_and_details(self):
        assert self.in_docs() == self.in_comments()


class TestBuf:
    def test_lint_is_clean(self, present):
        finished = run(TOOLS / "buf", "lint", present)
        assert (finished.returncode, finished.stdout) == (0, "")

    def test_lint_catches_an_undocumented_field(self, altered_proto, tmp_path):
        folder = altered_proto("audio_service.proto", r"  // Raw samples[^;]*(?=  bytes audio = 2;)", "")
        finished = run(TOOLS / "buf", "lint", image(tmp_path / "spoilt.binpb", "--proto", folder))
        assert finished.returncode != 0
        assert 'Field "audio" should have a non-empty comment' in finished.stdout

    def test_nothing_breaks_against_itself(self, present):
        finished = run(TOOLS / "buf", "breaking", present, "--against", present)
        assert (finished.returncode, finished.stdout) == (0, "")

    def test_breaking_catches_a_renumbered_field(self, altered_proto, present, tmp_path):
        folder = altered_proto("audio_service.proto", "max_chunk_bytes = 3;", "max_chunk_bytes = 9;")
        spoilt = image(tmp_path / "spoilt.binpb", "--proto", folder)
        finished = run(TOOLS / "buf", "breaking", spoilt, "--against", present)
        assert finished.returncode != 0
        assert 'field "3" with name "max_chunk_bytes"' in finished.stdout

    def test_breaking_allows_a_new_field(self, altered_proto, present, tmp_path):
        folder = altered_proto(
            "audio_service.proto",
            "  int64 max_chunk_bytes = 3;",
            "  int64 max_chunk_bytes = 3;\n  // Something new.\n  int64 something_new = 9;",
        )
        grown = image(tmp_path / "grown.binpb", "--proto", folder)
        finished = run(TOOLS / "buf", "breaking", grown, "--against", present)
        assert (finished.returncode, finished.stdout) == (0, "")


class TestDocumentation:
    def test_links_lead_somewhere(self):
        """Every relative link of the README and the guides names a file or folder that exists."""
        pages = [
            ROOT / "README.md",
            ROOT / "CONTRIBUTING.md",
            ROOT / "CHANGELOG.md",
            *(ROOT / "docs").rglob("*.md"),
        ]
        dead = [
            f"{page.relative_to(ROOT)}: {target}"
            for page in pages
            for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
            if not (page.parent / target).exists()
        ]
        assert dead == []
