"""Files that another user made, can change or can read are refused, with the command that helps."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from liveavatar_gateway.guarded_files import (
    UnsafeFile,
    open_own,
    read_guarded,
    require_closed_folder,
    require_own,
)

NOBODY = 65_534
SOMEBODY = 10_001
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("s3cret")
    path.chmod(0o600)
    return path


def read(path: Path, *, private: bool = True) -> bytes:
    return read_guarded(path, 100, private=private)


def as_nobody(work: Callable[[], object]) -> str:
    """Run work as a user without rights, in another process; return its error, or nothing."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
        except Exception as error:  # noqa: BLE001 - reported to the test
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        return said.read()


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_for_its_owner_alone_is_read(secret, mode):
    secret.chmod(mode)
    assert read(secret) == b"s3cret"
    with secret.open("ab") as file:
        file.write(b"x" * 200)
    assert len(read(secret)) == 101


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o444])
def test_a_secret_that_others_can_read_is_refused_and_a_public_file_is_not(secret, mode):
    secret.chmod(mode)
    with pytest.raises(UnsafeFile, match=f"read by other users .*chmod 600 {secret}"):
        read(secret)
    assert read(secret, private=False) == b"s3cret"


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_a_file_that_others_can_change_is_refused(secret, mode, private):
    secret.chmod(mode)
    with pytest.raises(UnsafeFile, match=r"changed by other users .*chmod go-w"):
        read(secret, private=private)


@pytest.fixture
def reachable(tmp_path):
    """Let every user into the folder of the test."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o711)


@as_root
@pytest.mark.usefixtures("reachable")
@pytest.mark.parametrize("private", [True, False])
def test_a_file_of_another_user_is_refused_with_the_ways_out(secret, private):
    secret.chmod(0o604)
    os.chown(secret, SOMEBODY, -1)
    refusal = as_nobody(lambda: read(secret, private=private))
    assert f"belongs to user {SOMEBODY}" in refusal
    assert "mount its folder read-only" in refusal


@as_root
@pytest.mark.parametrize("private", [True, False])
def test_root_reads_files_of_every_user_unless_others_can_change_them(secret, private):
    os.chown(secret, SOMEBODY, -1)
    assert read(secret, private=private) == b"s3cret"
    secret.chmod(0o606)
    with pytest.raises(UnsafeFile, match="changed by other users"):
        read(secret, private=private)


def read_closed(path: Path) -> bytes:
    return read_guarded(path, 100, private=True, closes_to_group=True)


@pytest.mark.parametrize("mode", [0o660, 0o640, 0o620])
def test_access_of_the_group_to_a_secret_that_the_gateway_may_have_made_is_taken_away(secret, mode):
    secret.chmod(mode)
    assert read_closed(secret) == b"s3cret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o666, 0o644])
def test_a_secret_that_everybody_can_open_is_refused_and_left_as_it_is(secret, mode):
    secret.chmod(mode)
    with pytest.raises(UnsafeFile, match="other users"):
        read_closed(secret)
    assert stat.S_IMODE(secret.stat().st_mode) == mode


@as_root
@pytest.mark.usefixtures("reachable")
def test_the_groups_access_to_a_file_of_roots_is_not_taken_away(secret):
    secret.chmod(0o640)
    os.chown(secret, 0, NOBODY)
    assert as_nobody(lambda: read_closed(secret)) == ""
    assert stat.S_IMODE(secret.stat().st_mode) == 0o640


@as_root
@pytest.mark.usefixtures("reachable")
def test_roots_file_may_be_readable_for_a_gateway_of_another_user(secret):
    """As Docker and Kubernetes give secrets to containers."""
    secret.chmod(0o444)
    assert as_nobody(lambda: read(secret)) == ""
    secret.chmod(0o446)
    assert as_nobody(lambda: read(secret)).startswith("UnsafeFile: ")
    os.chown(secret, NOBODY, -1)
    secret.chmod(0o444)
    assert "chmod 600" in as_nobody(lambda: read(secret))
    secret.chmod(0o400)
    assert as_nobody(lambda: read(secret)) == ""


def test_a_link_to_a_secret_is_followed_as_kubernetes_mounts_them(tmp_path, secret):
    link = tmp_path / "link"
    link.symlink_to(secret)
    assert read(link) == b"s3cret"
    secret.chmod(0o644)
    with pytest.raises(UnsafeFile):
        read(link)


def test_a_pipe_of_this_user_is_read(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, b"s3cret")
    os.close(writing)
    assert read(Path(f"/dev/fd/{reading}")) == b"s3cret"
    os.close(reading)


# --- files of the gateway's own


def create(path: Path) -> None:
    with open_own(path, os.O_RDWR | os.O_CREAT):
        pass


def test_a_new_file_is_for_this_user_alone(tmp_path):
    path = tmp_path / "registry.db"
    before = os.umask(0)
    try:
        create(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_access_of_the_group_which_kubernetes_adds_is_taken_away(tmp_path):
    path = tmp_path / "registry.db"
    create(path)
    path.chmod(0o660)
    create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o666])
def test_a_file_of_the_gateway_that_others_can_open_is_refused(tmp_path, mode):
    path = tmp_path / "registry.db"
    create(path)
    path.chmod(mode)
    with pytest.raises(UnsafeFile, match="open to other users"):
        create(path)


@pytest.mark.parametrize("target", ["there", "missing"])
def test_a_link_in_place_of_a_file_of_the_gateway_is_refused(tmp_path, target):
    (tmp_path / "there").write_text("")
    path = tmp_path / "registry.db"
    path.symlink_to(tmp_path / target)
    with pytest.raises(UnsafeFile, match="is a link"):
        create(path)
    assert not (tmp_path / "missing").exists()


def test_a_pipe_in_place_of_a_file_of_the_gateway_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "registry.db"
    os.mkfifo(path, 0o600)
    with pytest.raises(UnsafeFile, match="not a regular file"):
        create(path)


@as_root
def test_a_file_of_another_user_in_place_of_one_of_the_gateway_is_refused(tmp_path):
    path = tmp_path / "registry.db"
    create(path)
    os.chown(path, NOBODY, -1)
    with pytest.raises(UnsafeFile, match="belongs to user"):
        create(path)
    with pytest.raises(UnsafeFile, match="belongs to user"):
        require_own(path.lstat(), path)


def test_a_folder_in_which_others_can_replace_files_is_refused(tmp_path):
    require_closed_folder(tmp_path)
    tmp_path.chmod(0o1777)
    require_closed_folder(tmp_path)
    tmp_path.chmod(0o777)
    with pytest.raises(UnsafeFile, match="every user can replace files"):
        require_closed_folder(tmp_path)
    tmp_path.chmod(0o700)


@as_root
def test_a_folder_of_another_user_is_refused(tmp_path):
    folder = tmp_path / "of-somebody"
    folder.mkdir()
    os.chown(folder, NOBODY, -1)
    with pytest.raises(UnsafeFile, match="belongs to user"):
        require_closed_folder(folder)
