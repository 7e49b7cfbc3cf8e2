"""Device files of emulated phones and boards: the packaged ones, and what a user may get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import platformdirs
import pytest
import yaml

from edgekit.errors import TargetError
from edgekit.targets import find_device, list_devices, load_device
from edgekit.targets.devices import core_names, packaged_targets
from edgekit.targets.emulated.cores import load_core
from edgekit.targets.emulated.spec import EmulatedDevice

PACKAGED = sorted(
    path.stem for path in packaged_targets().glob("*.yaml") if "kind: emulated" in path.read_text(encoding="utf-8")
)
EXPECTED = {
    *("pixel", "pixel-2", "pixel-3", "pixel-3a", "pixel-4", "pixel-6", "pixel-8", "galaxy-s10", "galaxy-s21"),
    *("raspberry-pi-3b-plus", "raspberry-pi-4", "raspberry-pi-5", "orange-pi-5", "rockpro64", "rock-3a"),
    *("khadas-vim3", "redmi-9a", "galaxy-a03-core"),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / "targets").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(platformdirs, "user_config_path", lambda *_, **__: tmp_path / "config")
    return folder


def content() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "name": "board",
        "kind": "emulated",
        "description": "a board",
        "soc": "RK3399",
        "os": "Debian",
        "clusters": [
            {"name": "little", "core": "cortex-a53", "part": "Cortex-A53", "count": 4, "clock_mhz": 1416}
            | {"l1d_kib": 32, "l2_kib": 512},
            {"name": "big", "core": "cortex-a72", "part": "Cortex-A72", "count": 2, "clock_mhz": 1800}
            | {"l1d_kib": 32, "l2_kib": 1024},
        ],
        "memory": {"technology": "LPDDR4", "bandwidth_gb_s": 7.4, "latency_ns": 198},
        "features": ["neon"],
        "sources": {"clusters.*": "datasheet", "memory.*": "measured"},
    }


def load(project: Path, document: dict[str, Any]) -> EmulatedDevice:
    path = project / "targets" / "board.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    device = load_device(path)
    assert isinstance(device, EmulatedDevice)
    return device


def test_the_promised_devices_are_packaged() -> None:
    assert set(PACKAGED) >= EXPECTED


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_device_is_sound_and_every_number_has_a_source(name: str) -> None:
    device = load_device(packaged_targets() / f"{name}.yaml")
    assert isinstance(device, EmulatedDevice)
    for key in device.numbers():
        source = device.source(key)
        assert source is not None
        assert "http" in source or source.startswith("estimate: ") or "Manual" in source or "datasheet" in source, key
    assert device.primary_cluster.core in core_names()


@pytest.mark.parametrize("name", PACKAGED)
def test_features_of_a_packaged_device_are_those_of_its_core_table(name: str) -> None:
    """The guest sees the table's instruction sets: a device that promised others would promise other kernels."""
    device = load_device(packaged_targets() / f"{name}.yaml")
    assert isinstance(device, EmulatedDevice)
    words = {"neon": "asimd", "fp16": "asimdhp", "dotprod": "asimddp"}
    table = load_core(device.primary_cluster.core)
    assert {words[feature] for feature in device.features} == set(words.values()) & set(table.features)


def test_primary_cluster_is_the_fastest_when_none_is_named(project: Path) -> None:
    assert load(project, content()).primary_cluster.name == "big"
    assert load(project, content() | {"primary": "little"}).primary_cluster.clock_mhz == 1416


def test_source_of_a_key_wins_over_a_pattern(project: Path) -> None:
    device = load(project, content() | {"sources": content()["sources"] | {"clusters.big.count": "counted"}})
    assert device.source("clusters.big.count") == "counted"
    assert device.source("clusters.little.count") == "datasheet"


def test_users_own_device_is_found_first(project: Path) -> None:
    load(project, content())
    (project / "targets" / "pixel.yaml").write_text(yaml.safe_dump(content() | {"name": "pixel"}), encoding="utf-8")
    assert find_device("board").description == "a board"
    assert find_device("pixel").description == "a board"
    assert [listing.origin for listing in list_devices() if listing.name == "pixel"] == ["project"]


def change(path: str, value: object) -> dict[str, Any]:
    document = content()
    *parents, last = path.split(".")
    place: Any = document
    for key in parents:
        place = place[int(key)] if key.isdigit() else place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("clusters.1.clock_mhz", 0, r"clusters\.1\.clock_mhz: .*greater than or equal to 100; received 0$"),
        ("clusters.1.clock_mhz", 2.4, r"clusters\.1\.clock_mhz: .*greater than or equal to 100; received 2\.4$"),
        ("clusters.1.clock_mhz", "fast", r"clusters\.1\.clock_mhz: .*; received 'fast'$"),
        ("clusters.1.clock_mhz", float("nan"), r"clusters\.1\.clock_mhz: .*; received nan$"),
        ("clusters.1.clock_mhz", None, r"missing key 'clusters\.1\.clock_mhz'$"),
        ("clusters.0.l1d_kib", -32, r"clusters\.0\.l1d_kib: .*greater than or equal to 1; received -32$"),
        ("clusters.0.l2_kib", 0, r"clusters\.0\.l2_kib: .*; received 0$"),
        ("clusters.0.count", 0, r"clusters\.0\.count: .*greater than or equal to 1; received 0$"),
        ("clusters.0.count", True, r"clusters\.0\.count: .*; received True$"),
        (
            "clusters.0.core",
            "cortex-a722",
            r"clusters\.0\.core: unknown core 'cortex-a722'\. Did you mean 'cortex-a72'\? .*",
        ),
        ("clusters.0.name", "big", r"clusters: expected each cluster name once; twice: big$"),
        ("clusters.0.speed", 3, r"unknown key 'clusters\.0\.speed'"),
        ("clusters", [], r"clusters: expected at least one, received none$"),
        ("memory.bandwidth_gb_s", 0, r"memory\.bandwidth_gb_s: .*; received 0$"),
        ("memory.latency_ns", -1, r"memory\.latency_ns: .*; received -1$"),
        ("memory", None, r"missing key 'memory'$"),
        ("l3_kib", -1, r"l3_kib: .*; received -1$"),
        ("l3_kib", 2048, r"sources: no source for l3_kib; every number needs one$"),
        ("primary", "prime", r"primary: no cluster 'prime'\. Allowed: big, little\.$"),
        ("features", ["mmx"], r"features\.0: .*; received 'mmx'$"),
        ("sources", {"clusters.*": "x"}, r"no source for memory\.bandwidth_gb_s, memory\.latency_ns; every number"),
        (
            "sources",
            {"clusters.little.*": "x", "memory.*": "x"},
            r"no source for clusters\.big\.count, clusters\.big\.clo",
        ),
        ("sources", {"clusters.*": " ", "memory.*": "x"}, r"sources\.clusters\.\*: .*at least 1 character"),
        (
            "sources",
            {"clusters.*": "x", "memory.*": "x", "clusters.gib.count": "x"},
            r"sources: 'clusters\.gib\.count' name no number\. Did you mean 'clusters\.big\.count'\?",
        ),
    ],
)
def test_load_device_names_the_key_when_a_value_is_wrong(project: Path, path: str, value: object, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        load(project, change(path, value))
