"""Each rule refuses what it is about, says so with its source, and leaves its neighbours alone."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlparse

import numpy as np
import pytest
from formats.coreml.evaluator.mil_programs import ct, mb, program_of, save
from formats.coreml.placement.placement_programs import package, place, placed, weights

from edgekit.errors import TargetError, ToolError
from edgekit.formats.coreml.evaluator.graph import ValueType
from edgekit.formats.coreml.evaluator.registry import known_operations
from edgekit.formats.coreml.placement.facts import Tensor, read_facts
from edgekit.formats.coreml.placement.predict import predict
from edgekit.formats.coreml.placement.rules import load_rules, read_rules

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

NOT_EXECUTED_HERE = {"custom_layer", "classify"}


def _conv(kernel: tuple[int, int], **settings):
    return lambda x: mb.conv(x=x, weight=weights(4, 4, *kernel), pad_type="same", **settings)


def test_rules_name_operations_that_exist() -> None:
    named = {name for rule in load_rules().rules for name in (*rule.operations, *rule.besides)}
    assert named - set(known_operations()) <= NOT_EXECUTED_HERE


def test_each_rule_has_an_address_or_says_that_it_is_an_estimate() -> None:
    sources = [source for rule in load_rules().rules for source in rule.sources]
    assert len(sources) > 30
    for source in sources:
        assert source.standing == "estimate" or urlparse(source.url).scheme == "https"


def test_a_unit_is_named_twice_by_no_rule_of_the_same_name() -> None:
    ids = [rule.id for rule in load_rules().rules]
    assert len(ids) == len(set(ids))


REFUSED = {
    "lstm": (
        lambda x: mb.gru(
            x=mb.transpose(x=mb.squeeze(x=x, axes=[2]), perm=[2, 0, 1]),
            initial_h=np.zeros((1, 4), np.float16),
            weight_ih=weights(12, 4),
            weight_hh=weights(12, 4),
        )[1],
        (1, 4, 1, 6),
        "gru",
        "recurrent cells",
    ),
    "gather": (lambda x: mb.gather(x=x, indices=np.int32([1, 0]), axis=1), (1, 4, 6, 6), "gather", "by index"),
    "sorting": (lambda x: mb.topk(x=x, k=2, axis=3)[0], (1, 4, 6, 6), "topk", "sorting"),
    "product": (lambda x: mb.reduce_prod(x=x, axes=[3]), (1, 4, 6, 6), "reduce_prod", "refuses it for every chip"),
    "scan": (lambda x: mb.cumsum(x=x, axis=3), (1, 4, 6, 6), "cumsum", "running sums"),
    "wide kernel": (_conv((1, 33)), (1, 4, 6, 40), "conv", "a kernel of width 33; at most"),
    "tall kernel": (_conv((33, 1)), (1, 4, 40, 6), "conv", "a kernel of height 33; at most"),
    "dilation": (_conv((3, 3), dilations=[9, 9]), (1, 4, 32, 32), "conv", "dilations 9; at most 8"),
    "reflecting pad": (
        lambda x: mb.pad(x=x, pad=[0, 0, 0, 0, 1, 1, 1, 1], mode="reflect"),
        (1, 4, 6, 6),
        "pad",
        "mode reflect",
    ),
    "channel pad": (
        lambda x: mb.pad(x=x, pad=[0, 0, 1, 1, 0, 0, 0, 0], mode="constant", constant_val=np.float16(0)),
        (1, 4, 6, 6),
        "pad",
        "another dimension than height and width",
    ),
    "three dimensions": (
        lambda x: mb.conv(x=x, weight=weights(4, 4, 2, 2, 2), pad_type="valid"),
        (1, 4, 6, 6, 6),
        "conv",
        "3 spatial dimensions; at most 2",
    ),
    "long": (lambda x: mb.relu(x=x), (1, 1, 1, 70000), "relu", "width 70000"),
    "dense rank": (lambda x: mb.linear(x=x, weight=weights(5, 6)), (1, 2, 2, 2, 6), "linear", "5 dimensions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_neural_engine_refuses_with_reason_and_source(name: str, tmp_path) -> None:
    build, shape, kind, says = REFUSED[name]
    found = placed(place(tmp_path, build, x=shape), kind)
    assert "neural_engine" not in found.units
    assert says in found.reasons["neural_engine"]
    assert found.sources
    assert {"cpu", "gpu"} <= set(found.units)


TAKEN = {
    "kernel": (_conv((13, 13)), (1, 4, 20, 20), "conv"),
    "dilation": (_conv((3, 3), dilations=[8, 8]), (1, 4, 32, 32), "conv"),
    "pad": (
        lambda x: mb.pad(x=x, pad=[0, 0, 0, 0, 1, 1, 1, 1], mode="constant", constant_val=np.float16(0)),
        (1, 4, 6, 6),
        "pad",
    ),
    "depthwise": (
        lambda x: mb.conv(x=x, weight=weights(4, 1, 3, 3), groups=4, pad_type="same"),
        (1, 4, 6, 6),
        "conv",
    ),
    "five dimensions": (lambda x: mb.relu(x=x), (1, 2, 2, 2, 6), "relu"),
    "longest": (lambda x: mb.relu(x=x), (1, 1, 1, 16384), "relu"),
    "normalization": (lambda x: mb.layer_norm(x=x, axes=[3]), (1, 4, 6, 6), "layer_norm"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_neural_engine_takes_what_no_rule_refuses(name: str, tmp_path) -> None:
    build, shape, kind = TAKEN[name]
    found = placed(place(tmp_path, build, x=shape), kind)
    assert found.units == ("cpu", "gpu", "neural_engine")
    assert not found.reasons
    assert not found.sources


@pytest.mark.parametrize(
    ("build", "shape", "kind", "without", "with_it"),
    [
        (lambda x: mb.sin(x=x), (1, 4, 6, 6), "sin", "m2", "m3"),
        (_conv((1, 16)), (1, 4, 6, 20), "conv", "a14", "a15"),
        (lambda x: mb.relu(x=x), (1, 1, 1, 20000), "relu", "m3-max", "a17-pro"),
    ],
)
def test_a_rule_of_some_chips_holds_for_those_and_for_none_in_particular(
    build, shape, kind, without, with_it, tmp_path
) -> None:
    path = package(tmp_path, build, x=shape)
    assert "neural_engine" not in placed(predict(path, chip=without), kind).units
    assert "neural_engine" in placed(predict(path, chip=with_it), kind).units
    unnamed = placed(predict(path), kind)
    assert "neural_engine" not in unnamed.units
    assert without.removesuffix("-max").replace("a14", "m1") in unnamed.reasons["neural_engine"]


def test_unknown_chip_is_refused_with_the_nearest() -> None:
    with pytest.raises(TargetError, match=r"unknown chip 'm3-extreme'. Did you mean 'm3-[a-z]+'.*a17-pro"):
        load_rules().for_chip("m3-extreme")


def test_rank_above_five_is_refused(tmp_path) -> None:
    """coremltools writes no such program itself, other converters may."""
    facts = read_facts(package(tmp_path, lambda x: mb.relu(x=x), x=(1, 2, 3)))[1]
    rule = next(rule for rule in load_rules().rules if rule.id == "rank")
    wide = ValueType("tensor", "float16", (1, 1, 1, 1, 1, 2))
    assert rule.refuses(facts) is None
    refused = rule.refuses(replace(facts, outputs=(Tensor("y", "", wide),)))
    assert refused is not None
    assert "6 dimensions ('y' is [1, 1, 1, 1, 1, 2]); at most 5" in refused


def test_float32_program_is_left_to_cpu_and_gpu(tmp_path) -> None:
    program = program_of(lambda x: mb.relu(x=x), {"x": np.zeros((1, 4, 6, 6), np.float32)}, 17)
    found = placed(predict(save(program, 17, tmp_path)), "relu")
    assert found.units == ("cpu", "gpu")
    assert "computes in float16: it reads float32 values" in found.reasons["neural_engine"]


def test_wide_integers_are_left_to_the_others(tmp_path) -> None:
    program = program_of(lambda x: mb.add(x=x, y=np.int32(1)), {"x": np.zeros((2, 3), np.int32)}, 17)
    assert placed(predict(save(program, 17, tmp_path)), "add").units == ("cpu", "gpu")


def test_loops_and_what_they_hold_run_on_the_cpu(tmp_path) -> None:
    def build(x):
        return mb.while_loop(
            _cond=lambda v: mb.squeeze(x=mb.less(x=v, y=np.float16(5))),
            _body=lambda v: (mb.add(x=v, y=np.float16(4)),),
            loop_vars=(mb.relu(x=x),),
        )

    found = place(tmp_path, build, x=(1,))
    assert placed(found, "while_loop").units == ("cpu",)
    assert placed(found, "add").units == ("cpu",)
    assert "lies in the body of while_loop" in placed(found, "add").reasons["gpu"]
    assert placed(found, "relu").units == ("cpu", "gpu", "neural_engine")


def test_range_of_shapes_is_refused_and_a_list_is_not(tmp_path) -> None:
    from coremltools.converters.mil.mil import get_new_symbol, types

    def saved(shape, folder):
        spec = mb.TensorSpec(shape=(1, 4, get_new_symbol(), 8), dtype=types.fp16)

        @mb.program(input_specs=[spec], opset_version=ct.target.iOS17)
        def program(x):
            return mb.layer_norm(x=mb.relu(x=x), axes=[3])

        inputs = [ct.TensorType(name="x", shape=shape, dtype=np.float16)]
        return save(program, 17, folder, inputs=inputs)

    ranged = predict(saved((1, 4, ct.RangeDim(8, 16), 8), tmp_path / "range"))
    assert "range of shapes" in placed(ranged, "relu").reasons["neural_engine"]
    listed = predict(saved(ct.EnumeratedShapes([(1, 4, 8, 8), (1, 4, 16, 8)]), tmp_path / "list"))
    assert "neural_engine" in placed(listed, "relu").units
    assert "layer normalization" in placed(listed, "layer_norm").reasons["neural_engine"]


@pytest.mark.parametrize(("width", "takes"), [(32, True), (33, False)])
def test_state_of_odd_width_keeps_from_the_neural_engine(width: int, takes: bool, tmp_path) -> None:
    from coremltools.converters.mil.mil import types

    specs = [mb.TensorSpec((1, width), dtype=types.fp16), mb.StateTensorSpec((1, width), dtype=types.fp16)]

    @mb.program(input_specs=specs, opset_version=ct.target.iOS18)
    def program(x, total):
        added = mb.add(x=mb.read_state(input=total), y=x)
        return mb.coreml_update_state(state=total, value=added)

    found = predict(save(program, 18, tmp_path))
    assert ("neural_engine" in placed(found, "read_state").units) is takes
    assert placed(found, "write_state").compute_dtype == "none"  # it gives no value, which once ended the reader


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schema_version: 2", "schema_version"),
        ("- 1", "valid dictionary"),
        ("chips: {", "while parsing"),
    ],
)
def test_damaged_rules_are_a_tool_error(text: str, says: str) -> None:
    with pytest.raises(ToolError, match=says):
        read_rules(text)
