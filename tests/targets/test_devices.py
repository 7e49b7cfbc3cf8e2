from __future__ import annotations

import tempfile
from pathlib import Path

import platformdirs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import TargetError
from edgekit.targets import device_folders, diagnose, find_device, list_devices, load_device, target_spec, target_specs
from edgekit.targets.host.spec import HostDevice

GOOD = "schema_version: 1\nname: {name}\nkind: host\ndescription: {text}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / "targets").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(platformdirs, "user_config_path", lambda *_, **__: tmp_path / "config")
    (tmp_path / "config" / "targets").mkdir(parents=True)
    return folder


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / "targets" / f"{name}.yaml"
    path.write_text(content, encoding="utf-8")
    return path


def test_packaged_devices_are_all_sound(project: Path) -> None:
    listings = list_devices()
    assert "host" in [listing.name for listing in listings]
    assert [listing.problem for listing in listings if listing.problem] == []
    assert {listing.origin for listing in listings} == {"packaged"}


def test_find_device_takes_the_projects_first_then_the_users(project: Path, tmp_path: Path) -> None:
    assert find_device("host").description.startswith("the machine")
    write(tmp_path / "config", "host", GOOD.format(name="host", text="the user's"))
    assert find_device("host").description == "the user's"
    write(project, "host", GOOD.format(name="host", text="the project's"))
    assert find_device("host").description == "the project's"
    assert [listing.origin for listing in list_devices() if listing.name == "host"] == ["project"]


def test_device_folders_name_a_folder_once_when_the_project_is_edgekit_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = dict(device_folders())["packaged"]
    monkeypatch.chdir(packaged.parent)
    assert [folder for _, folder in device_folders()].count(packaged) == 1


def test_find_device_names_the_nearest_when_unknown(project: Path) -> None:
    with pytest.raises(TargetError, match=r"unknown target 'hots'\. Did you mean 'host'\?"):
        find_device("hots")


def test_list_devices_shows_a_broken_file_and_the_others(project: Path) -> None:
    write(project, "broken", "kind: [")
    by_name = {listing.name: listing for listing in list_devices()}
    assert by_name["broken"].device is None
    assert "expected YAML" in (by_name["broken"].problem or "")
    assert by_name["host"].device is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1\n", "expected keys and values; received list"),
        ("", "expected keys and values; received NoneType"),
        ("schema_version: 1\n", "expected a key 'kind'"),
        (
            GOOD.format(name="d", text="x").replace("host", "hsot"),
            r"unknown kind of target 'hsot'\. Did you mean 'host'",
        ),
        (GOOD.format(name="d", text="x") + "cpu: [1]\n", r"unknown key 'cpu'\. Did you mean 'cpus'"),
        (GOOD.format(name="d", text="x") + "cpus: [-1]\n", r"cpus\.0: .*greater than or equal to 0; received -1"),
        (GOOD.format(name="d", text="x") + "cpus: [1, 1]\n", r"expected each core once"),
        (GOOD.format(name="d", text="x") + "cpus: many\n", r"cpus: .*; received 'many'"),
        (GOOD.format(name="d", text="x").replace("version: 1", "version: 2"), "schema_version 2 is newer"),
        ("schema_version: 1\nkind: host\nname: d\n", "missing key 'description'"),
        (GOOD.format(name="other", text="x"), "expected the name 'd', as the file is called; received 'other'"),
    ],
)
def test_load_device_names_file_and_key_when_wrong(project: Path, content: str, message: str) -> None:
    path = write(project, "d", content)
    with pytest.raises(TargetError, match=message) as caught:
        load_device(path)
    assert str(path) in str(caught.value)


def test_load_device_error_is_clear_when_the_file_is_not_text(project: Path) -> None:
    path = project / "targets" / "d.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TargetError, match="cannot be read"):
        load_device(path)


def test_target_spec_lists_kinds_when_unknown() -> None:
    with pytest.raises(TargetError, match=r"recipe: unknown kind of target 'adbx'\. .*Allowed: .*host"):
        target_spec("adbx", place="recipe")
    assert "host" in target_specs()


def test_diagnosis_of_the_host_is_unusable_when_its_cores_do_not_exist() -> None:
    device = HostDevice(schema_version=1, name="quiet", kind="host", description="isolated cores", cpus=(4096,))
    diagnosis = diagnose(device)
    assert not diagnosis.usable
    assert any("4096" in problem for problem in diagnosis.problems)


def test_diagnosis_of_the_host_has_facts() -> None:
    diagnosis = diagnose(find_device("host"))
    assert diagnosis.usable
    assert {"cpu", "cores", "pinning", "peak_memory"} <= diagnosis.facts.keys()


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["schema_version", "name", "kind", "description", "cpus", "extra"])


@given(st.dictionaries(KEYS, YAML_VALUES | st.sampled_from([1, "d", "host", [0, 1]])) | YAML_VALUES)
def test_load_device_gives_a_device_or_one_clear_error_for_any_yaml(content: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        try:
            assert load_device(path).name == "d"
        except TargetError as error:
            assert str(path) in str(error)


@given(st.binary(max_size=60))
def test_load_device_gives_one_clear_error_for_any_bytes(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.yaml"
        path.write_bytes(content)
        with pytest.raises(TargetError, match=r"d\.yaml"):
            load_device(path)
