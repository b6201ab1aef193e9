"""A wrong params.yaml is refused in one line that names key, value and what is allowed."""

import pytest
from pydantic import Field

from stages.common.errors import UserError
from stages.common.params import Section, load_params


class Inner(Section):
    tau: float = Field(gt=0, lt=1)
    steps: int = Field(gt=0)


class Params(Section):
    inner: Inner


def load(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return load_params(Params, path)


def test_only_the_asked_sections_are_read(tmp_path):
    assert load(tmp_path, "inner: {tau: 0.5, steps: 3}\nother: whatever").inner.steps == 3


def test_exponents_are_numbers(tmp_path):
    """PyYAML reads 5e-4 as a string, DVC as a number; ours agrees with DVC."""
    assert load(tmp_path, "inner: {tau: 5e-4, steps: 3}").inner.tau == 0.0005


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: {tau: abc, steps: 3}", r"inner\.tau = 'abc': .*number"),
        ("inner: {tau: 1.5, steps: 3}", r"inner\.tau = 1\.5: .*less than 1"),
        ("inner: {tau: 0.5, steps: 2.5}", r"inner\.steps = 2\.5: .*integer"),
        ("inner: {tau: 0.5, steps: '3'}", r"inner\.steps = '3': .*integer"),
        ("inner: {tau: 0.5, steps: 3, typo: 1}", r"inner\.typo = 1: .*not permitted"),
        ("inner: {tau: 0.5}", r"inner\.steps is missing"),
        ("other: 1", r"inner is missing"),
        ("- a list", r"expected a mapping"),
        ("inner: {", r"cannot be read as YAML"),
    ],
)
def test_a_mistake_is_one_line_with_key_value_and_rule(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, text)
    assert "params.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
