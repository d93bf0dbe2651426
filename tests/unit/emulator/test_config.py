"""Knobs are checked by name and range."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from liveavatar_emulator.config import InvalidSetting, Settings, UnknownSetting, changed


def test_an_unknown_knob_is_named_with_a_suggestion():
    with pytest.raises(UnknownSetting, match="did you mean 'speed'") as refused:
        changed(Settings(), {"sped": 2})
    assert (refused.value.name, refused.value.suggestion) == ("sped", "speed")


@pytest.mark.parametrize(
    ("name", "value"),
    [("speed", 0), ("speed", float("nan")), ("concurrency", -1), ("profile", "baroque"), ("rate", "many")],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(InvalidSetting) as refused:
        changed(Settings(), {name: value})
    assert refused.value.name == name


def test_a_change_keeps_the_other_knobs():
    settings = changed(Settings(idle_s=7), {"speed": 3})
    assert (settings.idle_s, settings.speed) == (7, 3)


def test_settings_are_values():
    with pytest.raises(ValidationError):
        Settings().speed = 2  # type: ignore[misc]


def test_every_knob_explains_itself():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_guide_lists_every_knob_with_its_default():
    guide = (Path(__file__).parents[3] / "docs" / "emulator.md").read_text()
    for name, field in Settings.model_fields.items():
        default = (
            {True: "on", False: "off"}.get(field.default)
            if isinstance(field.default, bool)
            else f"`{field.default}`"
        )
        assert f"| `{name}` | {default} |" in guide
