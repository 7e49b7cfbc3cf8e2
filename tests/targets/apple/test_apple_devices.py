"""Device files of Apple chips: every number has a source, and every chip is one that placement knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgekit.errors import TargetError
from edgekit.formats.coreml.placement.rules import load_rules
from edgekit.targets import list_devices, load_device
from edgekit.targets.apple.spec import AppleDevice
from edgekit.targets.devices import packaged_targets

FILES = sorted(packaged_targets().glob("apple-*.yaml"))
CHIPS = {"a14", "a15", "a16", "a17-pro", "a18", "m1", "m2", "m3", "m4"}


def device(name: str) -> AppleDevice:
    found = load_device(packaged_targets() / f"{name}.yaml")
    assert isinstance(found, AppleDevice)
    return found


def changed(tmp_path: Path, change: Any) -> Path:
    content = yaml.safe_load((packaged_targets() / "apple-m1.yaml").read_text(encoding="utf-8"))
    change(content)
    path = tmp_path / "apple-m1.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_there_is_a_device_for_every_chip() -> None:
    assert {path.stem.removeprefix("apple-") for path in FILES} == CHIPS
    assert {item.name.removeprefix("apple-") for item in list_devices() if item.problem is None} >= CHIPS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_packaged_chip_is_sound(path: Path) -> None:
    found = device(path.stem)
    assert found.chip == path.stem.removeprefix("apple-")
    load_rules().chip(found.chip)  # raises where placement has no rules for it
    for number in found.numbers():
        source = found.source(number)
        assert source is not None
        assert source.startswith(("https://", "recalled: https://", "estimate: ")) or any(
            word in source for word in ("recalled: ", "lanes x 2 x", "as advertised")
        ), f"{number}: {source}"
    engine = found.neural_engine
    published = engine.published_tops * 1000
    assert published == (engine.gflops_fp16 if engine.published_precision == "fp16" else engine.gops_int8)
    assert engine.stream_gb_s <= found.memory.bandwidth_gb_s
    assert (engine.gops_int8 is not None) == load_rules().chip(found.chip).fast_int8


def test_lanes_and_clocks_agree_with_the_rates_of_the_gpus() -> None:
    for path in FILES:
        gpu = device(path.stem).gpu
        assert gpu.gflops_fp16 == pytest.approx(gpu.cores * 128 * 2 * gpu.clock_mhz / 1000, rel=0.01), path.stem


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["sources"].pop("gpu.launch_us"), r"no source for gpu\.launch_us"),
        (lambda content: content["sources"].update({"gpu.wings": "estimate: two"}), r"'gpu\.wings' name no number"),
        (lambda content: content.update(chip="z80"), r"chip: .*received 'z80'"),
        (lambda content: content["cpu"].update(cores=4), r"unknown key 'cpu\.cores'"),
        (lambda content: content["memory"].update(bandwidth_gb_s=-1), r"memory\.bandwidth_gb_s: .*received -1"),
        (lambda content: content["gpu"].update(sustained_share=1.5), r"gpu\.sustained_share: .*received 1\.5"),
        (lambda content: content.update(compute_units="npu"), r"compute_units: .*received 'npu'"),
        (lambda content: content.update(devices=[]), r"devices: "),
        (lambda content: content["neural_engine"].update(published_tops="11"), r"neural_engine\.published_tops"),
    ],
)
def test_device_file_is_refused_when_it_is_wrong(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        load_device(changed(tmp_path, change))
