"""YAML is read as PyYAML's safe loader reads it, but for keys that are written twice."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgekit import strict_yaml
from edgekit.errors import TargetError
from edgekit.strict_yaml import parse_yaml
from edgekit.targets.devices import load_device, packaged_targets
from edgekit.targets.emulated.cores import load_core

_SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the two differ on tags that nobody writes
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_DOCUMENTS = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)


@given(document=_DOCUMENTS)
def test_what_was_dumped_is_read(document: object) -> None:
    assert parse_yaml(yaml.safe_dump(document)) == document


@given(text=st.text(alphabet="ab:-{}[],&*!<|>'\"#\n 1.~", max_size=40))
def test_any_text_is_read_as_the_safe_loader_reads_it_or_refused(text: str) -> None:
    try:
        expected = yaml.load(text, Loader=_SAFE)
    except (yaml.YAMLError, ValueError):
        with pytest.raises(yaml.YAMLError):
            parse_yaml(text)
        return
    try:
        found = parse_yaml(text)
    except yaml.constructor.ConstructorError as error:
        assert "is written twice" in str(error)
        return
    assert found == expected


def test_merged_mappings_may_repeat_what_they_override() -> None:
    text = "base: &base {a: 1, b: 2}\nother: {<<: *base, a: 3}"
    assert parse_yaml(text)["other"] == {"a": 3, "b": 2}


def test_error_shows_the_line() -> None:
    with pytest.raises(yaml.YAMLError, match=r"(?s)the key 'a' is written twice.*line 3.*a: 3"):
        parse_yaml("a: 1\nb: 2\na: 3\n")


@pytest.mark.parametrize("depth", [2_000, 200_000])
@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_document_that_is_nested_too_deeply_is_refused(opening: str, depth: int) -> None:
    with pytest.raises(yaml.YAMLError, match="nested too deeply"):
        parse_yaml(opening * depth)


def test_deep_indentation_is_read_or_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="nested too deeply"):
        parse_yaml("".join(f"{' ' * level}a:\n" for level in range(600)))


def test_date_that_there_is_not_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="month must be in"):
        parse_yaml("since: 2020-13-01")


def test_packaged_tables_are_read_by_the_fast_parser() -> None:
    files = [*packaged_targets().glob("*.yaml"), *(packaged_targets() / "cores").glob("*.yaml")]
    assert len(files) > 30 and all(strict_yaml._is_shallow(file.read_text(encoding="utf-8")) for file in files)


def test_device_file_with_a_key_twice_is_refused(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text((packaged_targets() / "pixel-3a.yaml").read_text(encoding="utf-8") + "\nkind: host\n")
    with pytest.raises(TargetError, match="'kind' is written twice"):
        load_device(file)


def test_core_table_with_a_key_twice_is_refused(tmp_path) -> None:
    packaged = (packaged_targets() / "cores" / "cortex-a72.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(packaged + "\nclasses: {}\n")
    with pytest.raises(TargetError, match="'classes' is written twice"):
        load_core("mine", tmp_path)
