"""A wrong params.yaml is refused in one line that names key, value and what is allowed."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from stages.common.errors import UserError
from stages.common.params import Section, load_params, read_sealed, write_sealed


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
    "data",
    [
        "inner: {tau: 0.5, steps: 3} # é".encode("latin-1"),
        "inner: {tau: 0.5, steps: 3}".encode("utf-16"),
        b"inner: {tau: 2024-13-45, steps: 3}",
        b"[" * 6000,
    ],
)
def test_no_bytes_are_a_traceback(tmp_path, data):
    path = tmp_path / "params.yaml"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"params\.yaml: cannot be read as YAML") as caught:
        load_params(Params, path)
    assert "\n" not in str(caught.value)


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.text())))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_a_sealed_file_is_read_as_written_or_refused(tmp_path, value):
    path = tmp_path / "sealed.json"
    value = {key: one for key, one in value.items() if key != "checksum"}
    write_sealed(path, value)
    assert read_sealed(path, "again") == value
    whole = path.read_bytes()
    for place in range(0, len(whole), 1 + len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert read_sealed(path, "again") == value
        except UserError as error:
            assert str(error).endswith("; again") and len(str(error).splitlines()) == 1
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match="not readable"):
        read_sealed(path, "again")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: {tau: abc, steps: 3}", r"inner\.tau = 'abc': .*number"),
        ("inner: {tau: 1.5, steps: 3}", r"inner\.tau = 1\.5: .*less than 1"),
        ("inner: {tau: 0.5, steps: 2.5}", r"inner\.steps = 2\.5: .*integer"),
        ("inner: {tau: 0.5, steps: '3'}", r"inner\.steps = '3': .*integer"),
        ("inner: {tau: 0.5, steps: 3, typo: 1}", r"inner\.typo = 1: .*not permitted"),
        ("inner: {tau: 0.5}", r"inner\.steps is missing"),
        ("inner: {tau: 0.5, steps: 9223372036854775808}", r"steps must be less than 2 to the power of 63"),
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
