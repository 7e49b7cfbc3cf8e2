"""The document of a measurement: what fits the schema becomes a profile, everything else is refused with its place."""

from __future__ import annotations

import base64
import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tree_sitter
import tree_sitter_swift
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import ArtifactError, TargetError, ToolError
from edgekit.targets import measurement as schema
from edgekit.targets.devices import packaged_targets
from edgekit.targets.measured import measured_profile
from edgekit.targets.measurement import MeasurementDocument, Tensor, parse_document, read_document

DOCUMENTS = Path(__file__).parent / "documents"
PHONE = json.loads((DOCUMENTS / "iphone.json").read_text())


def parsed(document: Any) -> MeasurementDocument:
    return parse_document(json.dumps(document).encode(), "result.json")


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    document = copy.deepcopy(PHONE)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return document


def test_document_of_the_app_becomes_a_profile() -> None:
    document = read_document(DOCUMENTS / "iphone.json")
    profile = measured_profile(document, document.measurements[0], artifact="coreml/fp16", target="my-phone")
    assert profile.kind == "measured"
    assert profile.latency_ms.median == pytest.approx(0.44)
    assert (profile.latency_ms.init_cold, profile.latency_ms.init) == (98.5, 11.5)
    assert profile.memory_bytes.peak == 9_000_000
    assert [times.compute_units for times in profile.compute_units] == ["all", "cpuOnly"]
    assert profile.machine["cpu"] == "iPhone16,1"
    assert profile.placement is not None
    assert profile.placement.shares == {"neural_engine": 0.5, "cpu": 0.5}
    assert "cpuAndGPU was not timed: the unit refuses it" in profile.notes


def test_measurement_that_failed_raises_what_the_other_side_says() -> None:
    document = read_document(DOCUMENTS / "iphone.json")
    with pytest.raises(ToolError, match="phone: the model does not load"):
        measured_profile(document, document.measurements[1], artifact="coreml/int8", target="phone")


@pytest.mark.parametrize(
    ("code", "error"), [("system_too_old", TargetError), ("artifact_unreadable", ArtifactError), ("crashed", ToolError)]
)
def test_error_is_that_of_whoever_can_mend_it(code: str, error: type[Exception]) -> None:
    document = parsed(changed("measurements", 1, "error", to={"code": code, "message": "so it is"}))
    with pytest.raises(error, match="phone: so it is"):
        measured_profile(document, document.measurements[1], artifact="a", target="phone")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (changed("schema_version", to=2), "expected schema_version 1; received 2; update edgekit"),
        (changed("schema_version", to=0), "expected schema_version 1; received 0$"),
        (changed("kind", to="something"), "kind: Input should be 'edgekit-measurement'"),
        (changed("wings", to=2), "wings: Extra inputs are not permitted"),
        (changed("measurements", 0, "runs", 0, "samples_ms", 1, to=-1.0), r"measurements\.0\.runs\.0\.samples_ms\.1"),
        (changed("measurements", 0, "runs", 0, "samples_ms", 1, to="0.4"), "valid number"),
        (
            changed("measurements", 0, "runs", 0, "samples_ms", to=[]),
            "expected load_ms, first_ms, samples_ms and memory",
        ),
        (changed("measurements", 0, "runs", to=[]), "expected at least one run that was timed, or an error"),
        (changed("measurements", 0, "artifact", "sha256", to="abc"), "sha256: String should match"),
        (changed("measurements", 0, "runs", 0, "compute_units", to="gpuOnly"), "compute_units"),
        (changed("measurements", 0, "plan", "operations", 0, "cost", to=1.5), "cost"),
        (changed("measurements", 0, "outputs", "tensors", 0, "base64", to="AAAA"), "expected 24 bytes for float32"),
        (changed("measurements", 0, "outputs", "tensors", 0, "base64", to="***"), "expected base64"),
        (changed("measurements", 0, "outputs", "tensors", 0, "shape", to=[2**40, 2**40]), "bytes for float32"),
        (changed("measurements", 0, "outputs", "tensors", 0, "dtype", to="object"), "dtype"),
    ],
)
def test_wrong_document_is_refused_with_the_place(document: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        parsed(document)
    assert str(caught.value).startswith("result.json: ")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema_version": NaN}', b'"x"'])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"result\.json: expected"):
        parse_document(data, "result.json")


def test_numbers_that_are_none_are_refused() -> None:
    text = json.dumps(PHONE).replace("0.44", "NaN", 1)
    with pytest.raises(ArtifactError, match="samples_ms"):
        parse_document(text.encode(), "result.json")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nothing\.json: expected the result of a measurement"):
        read_document(tmp_path / "nothing.json")


def test_too_large_a_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.targets.measurement.LARGEST_BYTES", 10)
    (tmp_path / "big.json").write_bytes(b" " * 11)
    with pytest.raises(ArtifactError, match="at most 10 bytes; received 11"):
        read_document(tmp_path / "big.json")


@settings(deadline=None)
@given(cut=st.integers(0, 4000), junk=st.binary(max_size=8))
def test_damage_never_crashes(cut: int, junk: bytes) -> None:
    whole = json.dumps(PHONE).encode()
    try:
        parse_document(whole[:cut] + junk + whole[cut + len(junk) :], "result.json")
    except ArtifactError as error:
        assert "result.json" in str(error)


@settings(deadline=None)
@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=12),
    dtype=st.sampled_from(["float32", "float64", "float16"]),
)
def test_tensor_brings_back_what_was_sent(values: list[float], dtype: str) -> None:
    with np.errstate(over="ignore"):
        array = np.array(values).astype(dtype).reshape(1, -1)
    text = base64.b64encode(array.tobytes()).decode()
    tensor = Tensor.model_validate({"shape": array.shape, "dtype": dtype, "base64": text})
    assert np.array_equal(tensor.array(), array)


SWIFT_RECORDS = {
    "Document": schema.MeasurementDocument,
    "Tool": schema.Tool,
    "Problem": schema.Problem,
    "Artifact": schema.ArtifactFacts,
    "Runtime": schema.Runtime,
    "Config": schema.Config,
    "Memory": schema.Memory,
    "Run": schema.UnitRun,
    "Tensor": schema.Tensor,
    "Outputs": schema.Outputs,
    "Operation": schema.PlannedOperation,
    "Plan": schema.Plan,
    "Measurement": schema.Measurement,
}


def test_app_writes_the_keys_that_the_schema_reads() -> None:
    """The Swift records cannot be run here; their stored properties can be read."""
    source = packaged_targets() / "ios/EdgekitBench.swiftpm/Bench/Sources/EdgekitBench/Document.swift"
    found = swift_properties(source)
    assert set(found) == set(SWIFT_RECORDS)
    for name, model in SWIFT_RECORDS.items():
        needed = {key for key, field in model.model_fields.items() if field.is_required()}
        optional = {key for key, is_optional in found[name].items() if is_optional}
        assert set(found[name]) <= set(model.model_fields), name
        assert needed <= set(found[name]) - optional, name


def swift_properties(source: Path) -> dict[str, dict[str, bool]]:
    """Stored properties of every struct, in snake case, and whether each may be nil."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    found: dict[str, dict[str, bool]] = {}

    def visit(node: tree_sitter.Node) -> None:
        if node.type == "class_declaration" and node.children_by_field_name("declaration_kind")[0].text == b"struct":
            name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
            assert name is not None
            assert body is not None
            found[str(name.text, "utf-8")] = dict(
                stored(child) for child in body.children if child.type == "property_declaration" and is_stored(child)
            )
        for child in node.children:
            visit(child)

    def is_stored(node: tree_sitter.Node) -> bool:
        return not any(child.type == "computed_property" for child in node.children)

    def stored(node: tree_sitter.Node) -> tuple[str, bool]:
        name = re.search(rb"\b(?:let|var)\s+(\w+)", node.text or b"")
        assert name is not None
        snake = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name[1].decode()).lower()
        return snake, any(
            child.type == "type_annotation" and (child.text or b"").endswith(b"?") for child in node.children
        )

    visit(parser.parse(source.read_bytes()).root_node)
    return found
