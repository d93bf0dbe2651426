import os

import pytest

from liveavatar.gateway import ForkedClient
from liveavatar.gateway.forks import require_no_fork


def test_the_same_process_may_go_on():
    require_no_fork(os.getpid())


def test_another_process_is_refused_and_both_are_named():
    with pytest.raises(ForkedClient, match="after the fork") as raised:
        require_no_fork(1)
    assert raised.value.metadata == {"pid": "1", "fork_pid": str(os.getpid())}


def test_the_switch_for_grpc_is_not_left_behind():
    assert "GRPC_ENABLE_FORK_SUPPORT" not in os.environ
