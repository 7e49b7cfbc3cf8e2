"""A folder to carry to an iPhone: whole, well-formed, and only where there is something to carry."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tree_sitter
import tree_sitter_swift
from tiny_package import write_package

from edgekit.errors import ArtifactError, OutputError, UnsupportedError
from edgekit.pipeline.bundle import FIXTURE, NOT_RUN, BundleReport, bundle_build
from edgekit.pipeline.import_profile import import_profiles
from edgekit.records import Artifact, ArtifactReport, Manifest
from edgekit.store.atomic import digest_path, size_bytes
from edgekit.store.manifest import write_manifest

WEIGHTS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
SAMPLES = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
DOCUMENT = Path(__file__).parents[1] / "targets" / "documents" / "iphone.json"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("package") / "net.mlpackage", WEIGHTS)


@pytest.fixture(scope="module")
def built(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished build of one Core ML artifact, as ``edgekit build`` leaves it; nobody may write to it."""
    project = tmp_path_factory.mktemp("project")
    for file in (Path(__file__).parent / "project").glob("tiny_*.py"):
        shutil.copy(file, project)
    root = project / "builds" / "tiny"
    place = Path("artifacts/coreml/tiny-fp32.mlpackage")
    shutil.copytree(package, root / place)
    (root / "reference").mkdir()
    np.savez(root / "reference" / "fp32.npz", input_0=SAMPLES, source_output_0=SAMPLES @ WEIGHTS)
    write(root, [artifact(root, place)])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        yield root


@pytest.fixture
def build_dir(built: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(built, tmp_path / "tiny"))


def artifact(root: Path, place: Path) -> Artifact:
    return Artifact(
        format="coreml",
        precision="fp32",
        path=place,
        sha256=digest_path(root / place),
        size_bytes=size_bytes(root / place),
        inputs=(),
        outputs=(),
        minimum_deployment_target="iOS17",
    )


def write(root: Path, artifacts: list[Artifact]) -> None:
    recipe = {
        "schema_version": 1,
        "name": "tiny",
        "model": "tiny_model:build",
        "data": {"module": "tiny_data:load"},
        "export": [{"format": "coreml", "precision": ["fp32"], "minimum_deployment_target": "iOS17"}],
    }
    manifest = Manifest(
        schema_version=1,
        name="tiny",
        edgekit_version="0",
        recipe=recipe,
        tools={},
        seed=0,
        source=None,
        source_accuracy=None,
        data_digest="",
        training=None,
        artifacts=tuple(ArtifactReport(id="coreml/fp32", artifact=one) for one in artifacts),
    )
    write_manifest(manifest, root)


@pytest.fixture(scope="module")
def bundled(built: Path) -> BundleReport:
    return bundle_build(built, "ios", None)


def test_bundle_lies_beside_the_build_and_says_that_it_was_not_run(bundled: BundleReport, built: Path) -> None:
    assert bundled.path == built.with_name("tiny-ios")
    assert [one.id for one in bundled.artifacts] == ["coreml/fp32"]
    assert bundled.notes == (NOT_RUN,)
    readme = (bundled.path / "README.md").read_text()
    assert "**Written, not run**" in readme
    assert "BUILD/artifacts/coreml/tiny-fp32.mlpackage" in readme
    assert "BUILD/reference/fp32.npz" in readme


def test_artifact_is_carried_unchanged_with_its_golden_inputs_and_outputs(bundled: BundleReport) -> None:
    fixture = bundled.path / FIXTURE
    found = json.loads((fixture / "bundle.json").read_text())
    (one,) = found["artifacts"]
    assert digest_path(fixture / one["file"]) == one["sha256"]
    assert found["samples"] == 4
    assert one["min_sqnr_db"] == 40.0
    (fed,), (given,) = one["inputs"], one["outputs"]
    assert (fed["name"], fed["dtype"], fed["shape"]) == ("x", "float32", [4, 6])
    inputs = np.fromfile(fixture / fed["file"], "<f4").reshape(fed["shape"])
    outputs = np.fromfile(fixture / given["file"], "<f4").reshape(given["shape"])
    assert np.array_equal(inputs, SAMPLES[:4])
    assert np.allclose(outputs, SAMPLES[:4] @ WEIGHTS, atol=1e-5)


def test_every_swift_file_is_well_formed_and_no_word_of_the_templates_is_left(bundled: BundleReport) -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    files = sorted(bundled.path.rglob("*.swift"))
    assert len(files) == 10
    for file in files:
        tree = parser.parse(file.read_bytes())
        assert not tree.root_node.has_error, file.name
    texts = [file.read_text() for file in [*files, bundled.path / "README.md"]]
    assert not [text for text in texts for word in ("@NAME@", "_VERSION@", "@ARTIFACTS@", "@FIRST_") if word in text]


def test_package_asks_for_the_system_that_its_artifacts_need(bundled: BundleReport) -> None:
    manifest = (bundled.path / "EdgekitBench.swiftpm/Bench/Package.swift").read_text()
    assert '.iOS("17.0"), .macOS("14.0")' in manifest


def test_bundle_replaces_a_bundle_with_the_same_bytes(bundled: BundleReport, built: Path, tmp_path: Path) -> None:
    (tmp_path / "again" / "EdgekitBench.swiftpm").mkdir(parents=True)
    (tmp_path / "again" / "stale").write_text("")
    again = bundle_build(built, "ios", tmp_path / "again")
    assert digest_path(again.path) == digest_path(bundled.path)


def test_folder_of_something_else_is_not_replaced(built: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match="exists and is no bundle"):
        bundle_build(built, "ios", tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_changed_artifact_is_refused(build_dir: Path) -> None:
    (build_dir / "artifacts/coreml/tiny-fp32.mlpackage/Manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match="has changed since the build"):
        bundle_build(build_dir, "ios", None)


def test_build_without_core_ml_is_refused(build_dir: Path) -> None:
    write(build_dir, [])
    with pytest.raises(UnsupportedError, match="the build has no Core ML artifact"):
        bundle_build(build_dir, "ios", None)


@pytest.mark.parametrize("platform", ["android", "linux", "ios,android", ""])
def test_other_platforms_are_refused_with_a_way_out(platform: str, built: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"templates exist for ios.*--for ios"):
        bundle_build(built, platform, None)


def result_for(package: Path, outputs: np.ndarray, folder: Path) -> Path:
    """The document that the app would write for this package."""
    import base64

    document = json.loads(DOCUMENT.read_text())
    document["measurements"] = document["measurements"][:1]
    document["measurements"][0]["artifact"] = {
        "name": "coreml/fp32",
        "format": "coreml",
        "sha256": digest_path(package),
    }
    data = base64.b64encode(outputs.astype("<f4").tobytes()).decode()
    document["measurements"][0]["outputs"]["tensors"] = [
        {"shape": list(outputs.shape), "dtype": "float32", "base64": data}
    ]
    (folder / "result.json").write_text(json.dumps(document))
    return folder / "result.json"


def test_result_of_the_app_is_compared_when_the_artifact_is_named(built: Path, tmp_path: Path) -> None:
    package, reference = built / "artifacts/coreml/tiny-fp32.mlpackage", built / "reference/fp32.npz"
    result = result_for(package, SAMPLES[:4] @ WEIGHTS, tmp_path)
    (profile,) = import_profiles([result], artifact=package, inputs=reference, target=None)
    assert (profile.artifact, profile.target) == ("coreml/fp32", "iPhone16,1")
    assert profile.parity is not None
    assert (profile.parity.status, profile.parity.samples) == ("pass", 4)
    assert profile.parity.versus_source[0].sqnr_db > 90


def test_result_of_another_artifact_is_refused(built: Path) -> None:
    package = built / "artifacts/coreml/tiny-fp32.mlpackage"
    with pytest.raises(
        ArtifactError, match=r"expected a measurement of .*the digests of what is there differ: coreml/fp16"
    ):
        import_profiles([DOCUMENT], artifact=package, inputs=None, target=None)


def edgekit(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "edgekit"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_import_prints_a_table_or_a_list_of_profiles(tmp_path: Path) -> None:
    document = json.loads(DOCUMENT.read_text())
    document["measurements"] = document["measurements"][:1]
    (tmp_path / "result.json").write_text(json.dumps(document))
    shown = edgekit("profile", "--import", tmp_path / "result.json", "--target", "my-phone")
    assert shown.returncode == 0, shown.stderr
    assert "coreml/fp16 on my-phone (measured)" in shown.stdout
    (profile,) = json.loads(edgekit("profile", "--import", tmp_path / "result.json", "--json").stdout)
    assert (profile["kind"], profile["target"], profile["latency_ms"]["median"]) == ("measured", "iPhone16,1", 0.44)


def test_import_of_a_wrong_file_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    done = edgekit("profile", "--import", tmp_path / "result.json")
    assert done.returncode == 2
    assert "expected the result of a measurement" in done.stderr


def test_profile_needs_an_artifact_or_a_result() -> None:
    done = edgekit("profile")
    assert (done.returncode, "expected an artifact to profile, or --import" in done.stderr) == (2, True)
