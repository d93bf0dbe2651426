"""The file of the pool is one that the gateway reads, and nothing of it is left behind."""

from liveavatar_gateway.config import pool_file as gateway_file
from liveavatar_gateway.pool.warm_policy import WarmMode
from load.gateway import AVATAR_ID
from stage.pool_file import pool_file
from stage.services import API_KEY


def test_has_one_account_and_one_profile_that_learns():
    with pool_file(sessions=10, warm=5, avatar_id=AVATAR_ID) as path:
        found = gateway_file.read(path)
        assert (found.max_sessions, found.accounts["load"].api_key) == (10, API_KEY)
        profile = found.profiles["arrivals"].policy("arrivals")
        assert (profile.mode, profile.minimum, profile.maximum) == (WarmMode.LEARNT, 0, 5)
        assert found.profiles["arrivals"].serves("")
    assert not path.parent.exists()
