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


def test_labels_are_public_ids_and_never_secrets(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    files[0].write_text(f"lag_hsyfdc98uycb_{'s' * 43}\n")
    files[1].write_text("eyJhbGciOi.secret.secret")
    keys = CallerKeys.read(os.pathsep.join(map(str, files)))
    assert [keys.label_of(number) for number in range(3)] == ["hsyfdc98uycb", "credential 2", "hsyfdc98uycb"]


def test_a_single_key_has_no_label(tmp_path):
    file = tmp_path / "a"
    file.write_text("lag_a")
    assert CallerKeys.read(str(file)).label_of(0) is None
    assert CallerKeys.read("").label_of(0) is None
