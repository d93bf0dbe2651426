"""The contract: fresh stubs, reasons that agree everywhere, documented fields; deployments and links that hold."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import google.rpc
import grpc
import pytest

from liveavatar.gateway import Draining
from liveavatar.gateway.v1 import errors_pb2
from liveavatar_gateway.cli.connection import explanation
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
        cwd=options.pop("cwd", ROOT),
        env=path,
        text=True,
        capture_output=True,
        timeout=50,
        check=False,
        **options,
    )


def generate_stubs(*arguments):
    return run(TOOLS.parent / "stubs/bin/python", ROOT / "scripts/generate_stubs.py", *arguments)


def buf(*arguments, cwd=ROOT):
    """Run buf as in a fresh clone: without a cache or a home."""
    return run(TOOLS / "buf", *arguments, cwd=cwd, env={"HOME": "/nonexistent", "BUF_CACHE_DIR": "/nonexistent"})


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stubs")
    finished = generate_stubs(folder)
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture
def altered(tmp_path):
    """Copies what buf reads and replaces what a pattern matches in one of the files of `proto/`."""

    def alter(name, pattern, new):
        folder = tmp_path / "altered"
        folder.mkdir()
        for part in ("proto", "third_party"):
            shutil.copytree(ROOT / part, folder / part)
        shutil.copy(ROOT / "buf.yaml", folder)
        path = folder / "proto" / STUBS / name
        text, count = re.subn(pattern, new, path.read_text(), flags=re.DOTALL)
        assert count == 1
        path.write_text(text)
        return folder

    return alter


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
        finished = generate_stubs(tmp_path / "fresh", "--check", committed)
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
        groups = {"CallerError", "AccessError", "CapacityError", "OwnershipError", "UpstreamError"}
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
    def test_a_clone_builds_without_a_registry(self):
        finished = buf("build")
        assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")

    def test_lint_is_clean(self):
        finished = buf("lint")
        assert (finished.returncode, finished.stdout) == (0, "")

    def test_lint_catches_an_undocumented_field(self, altered):
        folder = altered("audio_service.proto", r"(?:  //[^\n]*\n)+(?=  bytes audio = 2;)", "")
        finished = buf("lint", cwd=folder)
        assert finished.returncode != 0
        assert 'Field "audio" should have a non-empty comment' in finished.stdout

    def test_nothing_breaks_against_itself(self):
        finished = buf("breaking", "--against", ROOT)
        assert (finished.returncode, finished.stdout) == (0, "")

    def test_breaking_catches_a_renumbered_field(self, altered):
        folder = altered("audio_service.proto", "max_chunk_bytes = 3;", "max_chunk_bytes = 33;")
        finished = buf("breaking", "--against", ROOT, cwd=folder)
        assert finished.returncode != 0
        assert 'field "3" with name "max_chunk_bytes"' in finished.stdout

    def test_breaking_allows_a_new_field(self, altered):
        folder = altered(
            "audio_service.proto",
            "  int64 max_chunk_bytes = 3;",
            "  int64 max_chunk_bytes = 3;\n  // Something new.\n  int64 something_new = 33;",
        )
        finished = buf("breaking", "--against", ROOT, cwd=folder)
        assert (finished.returncode, finished.stdout) == (0, "")

    def test_googles_files_are_those_of_the_package(self):
        """Copies that differ would make other stubs than those that callers have from Google."""
        (package,) = google.rpc.__path__
        vendored = sorted((ROOT / "third_party/googleapis/google/rpc").iterdir())
        assert [path.name for path in vendored] == ["code.proto", "error_details.proto", "status.proto"]
        assert [
            path.name for path in vendored if path.read_text() != (Path(package) / path.name).read_text()
        ] == []

    def test_the_go_package_is_where_the_go_client_will_lie(self):
        """An import path is a promise: what is generated with another one cannot be mixed with it."""
        path = "github.com/liveavatar-gateway/liveavatar-gateway/clients/go/gatewayv1"
        for file in (PROTO / STUBS).glob("*.proto"):
            assert f'option go_package = "{path};gatewayv1";' in file.read_text(), file.name
        assert f"module={path.removesuffix('/gatewayv1')}" in (ROOT / "buf.gen.yaml").read_text()

    def test_generate_makes_the_stubs_that_are_committed(self, tmp_path):
        """Python's, and TypeScript's beside them; the other plugins take a Go and a Maven."""
        generated = ROOT / "build/generated"
        finished = run(
            *(sys.executable, ROOT / "scripts/generate.py", "--only", "python,typescript"),
            env={"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/")},
        )
        assert finished.returncode == 0, finished.stderr
        names = {path.stem for path in (generated / "typescript" / STUBS).glob("*.ts")}
        assert names == {path.stem for path in (PROTO / STUBS).glob("*.proto")}
        assert (generated / "typescript/google/rpc/status.ts").exists()
        ours = generated / "python" / STUBS
        services = [path.name for path in ours.glob("*_pb2_grpc.py")]
        assert len(services) == len(names)
        committed = ROOT / "clients/python" / STUBS
        assert [name for name in services if (ours / name).read_text() != (committed / name).read_text()] == []
        # Messages are compared by what made them: buf gives the generator JSON names, which protoc leaves out.
        generator = re.compile(r"^# Protobuf Python Version: .*$", re.MULTILINE)
        for name in names:
            made, kept = ((folder / f"{name}_pb2.py").read_text() for folder in (ours, committed))
            assert generator.search(made)[0] == generator.search(kept)[0]


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

    def test_each_fixed_bug_names_tests_that_exist_and_a_kind_that_is_explained(self):
        kinds_table, bugs_table = (ROOT / "tests/BUGS.md").read_text().split("| what happened, and why |")
        kinds = re.findall(r"^\| (\w+) \| ", kinds_table, re.MULTILINE)
        rows = [
            line.strip("| ").split(" | ") for line in bugs_table.splitlines()[2:] if not line.startswith("|---")
        ]
        assert [row for row in rows if len(row) != 3 or row[1] not in kinds] == []
        tests = "\n".join(page.read_text() for page in (ROOT / "tests").rglob("test_*.py"))
        defined = set(re.findall(r"def (test_\w+)\(", tests))
        named = re.findall(r"`(test_\w+)(?:\[[^`]*)?`", bugs_table)
        assert [name for name in named if name not in defined] == []
        paths = re.findall(r"`(tests/[^`]+)`", bugs_table)
        assert [path for path in paths if not (ROOT / path).exists()] == []


def test_a_drain_is_told_in_the_same_sentence_everywhere_and_with_the_wait_of_its_retry_info():
    draining = errors.Draining()
    sentence = draining.message
    assert f"come back in {draining.retry_after_s:g} s " in sentence

    def says_so(text: str) -> bool:
        words = " ".join(re.sub(r'^ *(//|"|\|)', " ", text, flags=re.MULTILINE).replace('"', "").split())
        return sentence.lower().rstrip(".") in words.lower()

    for path in (
        ROOT / "docs/errors.md",
        PROTO / STUBS / "errors.proto",
        ROOT / "clients/python/liveavatar/gateway/attach.py",
    ):
        assert says_so(path.read_text()), path
    shown = explanation(Draining(sentence, code=grpc.StatusCode.UNAVAILABLE, retry_after=1.0), "here:1")
    assert shown == [f"DRAINING: {sentence}"]
