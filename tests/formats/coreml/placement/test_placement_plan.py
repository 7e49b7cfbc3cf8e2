"""Core ML's own plan as a placement, from plans built of coremltools' own records (there is no Mac here)."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import pytest
from formats.coreml.evaluator.mil_programs import mb
from formats.coreml.placement.placement_programs import convolutions, package

from edgekit.errors import ToolError, UnsupportedError
from edgekit.formats.coreml.evaluator.load import load
from edgekit.formats.coreml.placement.facts import read_facts
from edgekit.formats.coreml.placement.plan import ask, measured, read_plan
from edgekit.records import PlacementRequest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


class MLCPUComputeDevice:
    """As coremltools calls it; its own cannot be made without a Mac."""


class MLGPUComputeDevice:
    """See above."""


class MLNeuralEngineComputeDevice:
    """See above."""


class ToasterComputeDevice:
    """No device of Core ML's."""


CPU, GPU, ENGINE = MLCPUComputeDevice(), MLGPUComputeDevice(), MLNeuralEngineComputeDevice()


class FakePlan:
    """Answers as ``MLComputePlan`` does, about a program that is read from a package."""

    def __init__(self, path, answers: Mapping[str, tuple[Any, list[Any], float]]) -> None:
        from coremltools.models import compute_plan as api

        self._api, self._answers = api, answers
        graph = load(path)
        block = self._block(graph.functions[graph.default].block)
        function = api.MLModelStructureProgramFunction(inputs=[], block=block)
        program = api.MLModelStructureProgram(functions={graph.default: function})
        self.model_structure = api.MLModelStructure(neuralnetwork=None, program=program, pipeline=None)

    def _block(self, block):
        api = self._api
        operations = [
            api.MLModelStructureProgramOperation(
                inputs={},
                operator_name=f"ios17.{operation.type}",
                outputs=[
                    api.MLModelStructureProgramNamedValueType(item.name, api.MLModelStructureProgramValueType())
                    for item in operation.outputs
                ],
                blocks=[self._block(inner) for inner in operation.blocks],
                __proxy__=None,
            )
            for operation in block.operations
        ]
        return api.MLModelStructureProgramBlock(inputs=[], operations=operations, output_names=list(block.outputs))

    def get_compute_device_usage_for_mlprogram_operation(self, operation):
        found = self._answers.get(operation.operator_name.removeprefix("ios17."))
        return None if found is None else self._api.MLComputePlanDeviceUsage(found[0], found[1])

    def get_estimated_cost_for_mlprogram_operation(self, operation):
        return self._api.MLComputePlanCost(self._answers[operation.operator_name.removeprefix("ios17.")][2])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    def build(x):
        return convolutions(2)(mb.cumsum(x=x, axis=3))

    return package(tmp_path_factory.mktemp("plan"), build, x=(1, 64, 16, 16))


ANSWERS = {
    "cast": (ENGINE, [CPU, GPU, ENGINE], 0.0),
    "cumsum": (CPU, [CPU], 0.3),
    "conv": (ENGINE, [CPU, ENGINE], 0.3),
    "relu": (ENGINE, [CPU, ENGINE], 0.05),
}


def test_plan_becomes_a_measured_placement(path) -> None:
    found = measured(read_facts(path), read_plan(FakePlan(path, ANSWERS)), "all", "m2")
    assert (found.kind, found.chip, found.compute_units) == ("measured", "m2", "all")
    assert [item.preferred for item in found.operations if item.type == "conv"] == ["neural_engine"] * 2
    running = next(item for item in found.operations if item.type == "cumsum")
    assert (running.units, running.preferred, running.cost) == (("cpu",), "cpu", 0.3)
    assert found.shares == {"cpu": 0, "gpu": 0, "neural_engine": 1}
    assert found.takes == {"cpu": 1, "gpu": 0, "neural_engine": 1}
    assert found.segments == 3
    assert found.transfers == 2
    assert found.notes == ()


def test_operations_that_a_plan_leaves_out_are_said(path) -> None:
    answers = {name: answer for name, answer in ANSWERS.items() if name != "relu"}
    found = measured(read_facts(path), read_plan(FakePlan(path, answers)), "all", None)
    relu = next(item for item in found.operations if item.type == "relu")
    assert (relu.preferred, relu.cost) == ("neural_engine", None)
    assert found.notes == ("the plan says nothing of 2 operations: each counts as run where the one before it runs",)


def test_unknown_device_is_a_tool_error(path) -> None:
    plan = FakePlan(path, {"relu": (ToasterComputeDevice(), [], 0.0)})
    with pytest.raises(ToolError, match="MLNeuralEngineComputeDevice; received ToasterComputeDevice"):
        list(read_plan(plan))


def test_plan_of_another_kind_of_model_is_a_tool_error(path) -> None:
    from coremltools.models.compute_plan import MLModelStructure

    plan = FakePlan(path, {})
    plan.model_structure = MLModelStructure(neuralnetwork=None, program=None, pipeline=None)
    with pytest.raises(ToolError, match="plan of an ML program"):
        list(read_plan(plan))


@pytest.mark.skipif(platform.system() == "Darwin", reason="a Mac has a plan")
def test_plan_is_refused_elsewhere_with_the_way_out(path) -> None:
    with pytest.raises(UnsupportedError, match=r"MLComputePlan exists on macOS.*ssh:user@mac"):
        ask(PlacementRequest(path=path))
