from __future__ import annotations

import shutil
from pathlib import Path

import a64_code as a64
import platformdirs
import pytest
import yaml

from edgekit.errors import TargetError
from edgekit.targets.devices import core_names, packaged_targets
from edgekit.targets.emulated.cores import core_text, judged_name, load_core
from edgekit.targets.emulated.mnemonics import CLASSES
from edgekit.targets.emulated.place import CorePlace

FOLDER = packaged_targets() / "cores"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
WANTED = {
    *("cortex-a53", "cortex-a55", "cortex-a57", "cortex-a72", "cortex-a73", "cortex-a75", "cortex-a76", "cortex-a77"),
    *("cortex-a78", "cortex-x1", "kryo", "firestorm"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The packaged tables, to be changed."""
    return Path(shutil.copytree(FOLDER, tmp_path / "cores"))


def change(folder: Path, name: str, path: str, value: object) -> None:
    file = folder / f"{name}.yaml"
    table = yaml.safe_load(file.read_text())
    *parents, last = path.split(".")
    place = table
    for key in parents:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    file.write_text(yaml.safe_dump(table, sort_keys=False))


def test_packaged_tables_cover_every_named_core_when_listed() -> None:
    assert set(NAMES) >= WANTED


@pytest.mark.parametrize("name", NAMES)
def test_load_core_gives_every_number_an_origin_when_a_packaged_table_is_read(name: str) -> None:
    table = load_core(name)
    assert table.name == name
    assert set(table.classes) == set(CLASSES)
    for place, entry in table.entries():
        origin = table.sources.get(entry.source or "", entry.estimate)
        assert origin, f"{name}: {place}"


@pytest.mark.parametrize("name", NAMES)
def test_core_text_writes_one_line_a_class_when_given_a_packaged_table(name: str) -> None:
    lines = core_text(load_core(name), a64.PLACE).splitlines()
    assert lines[0] == f"core {name}"
    assert sum(line.startswith("class ") for line in lines) == len(CLASSES)


def test_load_core_takes_what_it_does_not_state_from_its_base_when_a_table_extends_another() -> None:
    base, table = load_core("cortex-a76"), load_core("cortex-a77")
    assert table.classes["fmla_q"] == base.classes["fmla_q"]
    assert table.pipeline.dispatch_width.value > base.pipeline.dispatch_width.value
    assert table.part != base.part


def test_core_text_turns_nanoseconds_into_cycles_when_the_clock_differs() -> None:
    def memory_line(clock: float) -> float:
        place = CorePlace(
            clock_mhz=clock,
            l1d_kib=32,
            l2_kib=None,
            l3_kib=None,
            memory_bandwidth_gb_s=8,
            memory_latency_ns=100,
        )
        text = core_text(load_core("cortex-a72"), place)
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith("set memory_latency")))

    hit = load_core("cortex-a72").classes["load_x"].latency
    assert memory_line(2000) == pytest.approx(200 - hit)
    assert memory_line(1000) == pytest.approx(100 - hit)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("classes.smull", None, "no entry for smull"),
        ("classes.branch.uops", ["B9"], "'B9'"),
        ("classes.branch.source", None, "source: KEY"),
        ("classes.branch.source", "hearsay", "'hearsay' is not declared"),
        ("classes.branch.latency", 0, "greater than or equal to 1"),
        ("classes.div.uops", ["M*99"], "PORT*CYCLES"),
        ("classes.div.uops", ["M@4"], "issues in order"),
        ("classes.div.first", True, "issues in order"),
        ("pipeline.dispatch_width.source", None, "source: KEY"),
        ("ports.B", "nowhere", "'nowhere' is not declared"),
        ("groups.F", ["F0", "F7"], "'F7' is not declared"),
        ("dispatch_limits", {"F7": {"value": 1, "estimate": "one"}}, "'F7' is not declared"),
        ("dispatch_limits.F0", {"value": 1}, "source: KEY"),
        ("memory.l2_latency.value", -1, "greater than or equal to 0"),
        ("memory.l2_latency", None, "l2_latency"),
        ("features", ["fp", "asmid"], "asimd"),
        ("colour", "blue", "colour"),
    ],
)
def test_load_core_names_the_place_when_a_table_breaks_a_rule(
    folder: Path, path: str, value: object, said: str
) -> None:
    change(folder, "cortex-a72", path, value)
    with pytest.raises(TargetError, match="cortex-a72") as error:
        load_core("cortex-a72", folder)
    assert said in str(error.value)


def test_load_core_refuses_when_an_estimate_has_a_source_too(folder: Path) -> None:
    change(folder, "cortex-a72", "classes.branch.estimate", "a guess")
    with pytest.raises(TargetError, match="both or none"):
        load_core("cortex-a72", folder)


def test_load_core_refuses_dispatch_limits_when_the_core_issues_in_order(folder: Path) -> None:
    change(folder, "cortex-a53", "dispatch_limits", {"LD": {"value": 1, "estimate": "one"}})
    with pytest.raises(TargetError, match="dispatch_limits` only in a core that issues out of order"):
        load_core("cortex-a53", folder)


def test_load_core_refuses_when_tables_extend_each_other(folder: Path) -> None:
    change(folder, "cortex-a76", "extends", "cortex-a77")
    with pytest.raises(TargetError, match="circle"):
        load_core("cortex-a77", folder)


def test_load_core_names_the_nearest_when_there_is_no_such_table() -> None:
    with pytest.raises(TargetError, match="cortex-a76"):
        load_core("cortex-a67")


def test_load_core_refuses_when_a_table_is_not_yaml(folder: Path) -> None:
    (folder / "cortex-a72.yaml").write_text("name: [")
    with pytest.raises(TargetError, match="cannot be read"):
        load_core("cortex-a72", folder)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project's own core tables; there are none of the user's."""
    cores = tmp_path / "project" / "targets" / "cores"
    cores.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(platformdirs, "user_config_path", lambda *_, **__: tmp_path / "config")
    return cores


OWN = """
schema_version: 1
name: {name}
title: Ours
extends: {base}
pipeline:
  mispredict_penalty: {{value: 31, {why}}}
"""
MEASURED = 'estimate: "measured on our board"'


def test_load_core_takes_a_projects_own_table_when_it_extends_a_packaged_one(project: Path) -> None:
    (project / "our-core.yaml").write_text(OWN.format(name="our-core", base="cortex-a72", why=MEASURED))
    table, base = load_core("our-core"), load_core("cortex-a72")
    assert "our-core" in core_names()
    assert table.pipeline.mispredict_penalty.value == 31
    assert table.classes == base.classes


def test_load_core_changes_a_packaged_table_when_the_projects_one_extends_its_own_name(project: Path) -> None:
    (project / "cortex-a72.yaml").write_text(OWN.format(name="cortex-a72", base="cortex-a72", why=MEASURED))
    table, packaged = load_core("cortex-a72"), load_core("cortex-a72", FOLDER)
    assert table.pipeline.mispredict_penalty.value == 31
    assert packaged.pipeline.mispredict_penalty.value != 31
    assert table.memory == packaged.memory


def test_judged_name_is_another_when_a_table_is_not_the_packaged_one(project: Path) -> None:
    assert judged_name(load_core("cortex-a73")) == "cortex-a73"
    (project / "cortex-a72.yaml").write_text(OWN.format(name="cortex-a72", base="cortex-a72", why=MEASURED))
    assert judged_name(load_core("cortex-a72")) == "your own cortex-a72"


def test_load_core_names_the_file_when_a_projects_own_table_is_wrong(project: Path) -> None:
    (project / "our-core.yaml").write_text(OWN.format(name="our-core", base="cortex-a72", why="source: hearsay"))
    with pytest.raises(TargetError, match=r"project.targets.cores.our-core\.yaml.*'hearsay' is not declared"):
        load_core("our-core")
