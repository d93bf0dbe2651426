import os

import pytest

from load.keys import CallerKeys
from load.run_config import InvalidRunConfig


def test_without_keys_callers_send_no_credential():
    assert CallerKeys.read("").of(3) == ()


def test_users_are_spread_over_the_keys(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text(f"lag_{file.name}\n")
    keys = CallerKeys.read(os.pathsep.join(map(str, files)))
    assert [keys.of(number)[0][1] for number in range(3)] == ["Bearer lag_a", "Bearer lag_b", "Bearer lag_a"]


@pytest.mark.parametrize("content", [None, "", "two words"])
def test_an_unusable_file_is_named_without_its_content(tmp_path, content):
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidRunConfig, match="LOAD_KEY_FILES") as refused:
        CallerKeys.read(str(file))
    assert not content or content not in str(refused.value)
