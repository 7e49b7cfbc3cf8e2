"""Tiny models and their programs at every precision, for the contract suites: quantized with PT2E directly, so that a
format is tested without a framework."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.ao.quantization.fx import _decomposed as _registers  # noqa: F401 - quantized_decomposed operators

from edgekit.program.quantization import output_quantizations
from edgekit.program.serialize import load_program, save_program
from edgekit.records import Precision, Program, TensorSpec

Array = NDArray[np.generic]
SAMPLES = 8
_LEVELS = {"w8": 127, "w4": 7}
_QUIET = "ignore"


class Cnn(nn.Module):
    """Standard and depthwise convolutions, a residual, pooling, dense layers: what phones run most.

    A convolution and a dense layer have more than 1024 weights: TensorFlow's converter leaves smaller ones in floating
    point where it quantizes activations at run time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, 1, 1, groups=12)
        self.residual = nn.Conv2d(12, 12, 3, 1, 1)
        self.wide, self.head = nn.Linear(12, 96), nn.Linear(96, 5)

    def forward(self, image):
        x = F.relu(self.stem(image))
        x = F.relu6(self.depthwise(x))
        x = F.relu(x + self.residual(x))
        return self.head(F.relu(self.wide(F.adaptive_avg_pool2d(x, 1).flatten(1))))


CNN_MACS = 8 * 8 * 12 * (3 * 9 + 9 + 12 * 9) + 12 * 96 + 96 * 5


class Attention(nn.Module):
    """int64 tokens, a boolean mask, an embedding, one head of attention, layer norm."""

    def __init__(self, width: int = 16, length: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, tokens, mask):
        x = self.embed(tokens)
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 4.0
        scores = scores + torch.where(mask[:, None, :], 0.0, -1e4)
        x = self.norm(x + scores.softmax(-1) @ self.value(x))
        return self.head(x.mean(1))


class TwoHeads(nn.Module):
    """Two inputs; a dictionary of two outputs, one of which is a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(6, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, left, right):
        hidden = F.relu(self.left(left) + self.right(right))
        return {"scores": self.head(hidden), "total": hidden.sum()}


class Recurrent(nn.Module):
    """A GRU whose last state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, sequence):
        return self.head(self.gru(sequence)[0][:, -1])


@dataclass(frozen=True)
class TinyModel:
    """A model with what feeds it."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int, torch.Generator], tuple[torch.Tensor, ...]]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


def _tokens(count: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    lengths = torch.randint(3, 9, (count, 1), generator=generator)
    return torch.randint(0, 50, (count, 8), generator=generator), torch.arange(8)[None] < lengths


def _normal(*shapes: tuple[int, ...]) -> Callable[[int, torch.Generator], tuple[torch.Tensor, ...]]:
    return lambda count, generator: tuple(torch.randn(count, *shape, generator=generator) for shape in shapes)


MODELS = {
    "cnn": TinyModel(Cnn, _normal((3, 16, 16)), ("image",), ("logits",)),
    "attention": TinyModel(Attention, _tokens, ("tokens", "mask"), ("logits",)),
    "two_heads": TinyModel(TwoHeads, _normal((6,), (4,)), ("left", "right"), ("scores", "total")),
    "recurrent": TinyModel(Recurrent, _normal((6, 4)), ("sequence",), ("logits",)),
}


def build_program(name: str, precision: Precision, folder: Path, *, dynamic_batch: bool = False) -> Program:
    """Write the program of a tiny model with its reference and calibration samples, and describe it."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny = MODELS[name]
    torch.set_num_threads(1)  # the models are too small for more
    torch.manual_seed(1)
    model = tiny.build().eval()
    samples = tiny.inputs(SAMPLES, torch.Generator().manual_seed(7))
    calibration = tiny.inputs(16, torch.Generator().manual_seed(8))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(_QUIET)
        source_outputs = _run_each(model, samples)  # before the weights are folded in place
        exported = _export(model, tiny, calibration, precision, dynamic_batch)
        save_program(exported, folder / "program.pt2")
        run = exported.module(check_guards=False)
        program_outputs = _run_each(run, samples)
        quantizations = output_quantizations(exported)
    _save(folder / "reference.npz", input=samples, source_output=source_outputs, program_output=program_outputs)
    _save(folder / "calibration.npz", input=calibration)
    free = (None,) if dynamic_batch else (1,)
    return Program(
        path=folder / "program.pt2",
        precision=precision,
        dynamic_batch=dynamic_batch,
        inputs=tuple(_spec(n, t.numpy(), free) for n, t in zip(tiny.input_names, samples, strict=True)),
        outputs=tuple(_spec(n, a, free) for n, a in zip(tiny.output_names, program_outputs, strict=True)),
        reference=folder / "reference.npz",
        calibration=folder / "calibration.npz",
        output_steps=tuple(None if q is None else q.scale[0] for q in quantizations),
    )


def folded_integers(program: Program) -> list[Array]:
    """The integer weights that a quantized program holds, in graph order."""
    loaded = load_program(program.path)
    tensors = {**loaded.state_dict, **loaded.constants}
    return [
        tensor.numpy()
        for tensor in tensors.values()
        if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.int8 and tensor.ndim > 1
    ]


def _export(model, tiny, calibration, precision, dynamic_batch):
    example = tuple(tensor[:2] if dynamic_batch else tensor[:1] for tensor in calibration)
    shapes = tuple({0: torch.export.Dim("batch", min=1, max=64)} for _ in example) if dynamic_batch else None
    if precision in _LEVELS:
        model = _fold_weights(model, _LEVELS[precision])
    elif precision != "fp32":
        model = _quantize(model, example, shapes, calibration, dynamic=precision == "int8-dynamic")
    return torch.export.export(model, example, dynamic_shapes=shapes)


def _quantize(model, example, shapes, calibration, *, dynamic):
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic))
    prepared = prepare_pt2e(torch.export.export(model, example, dynamic_shapes=shapes).module(), quantizer)
    for index in range(len(calibration[0])):
        prepared(*(tensor[index : index + 1] for tensor in calibration))
    return convert_pt2e(prepared)


class _Dequantize(nn.Module):
    def __init__(self, scale, levels):
        super().__init__()
        self.levels = levels
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int64))

    def forward(self, integers):
        return torch.ops.quantized_decomposed.dequantize_per_channel(
            integers, self.scale, self.zero_point, 0, -self.levels, self.levels, torch.int8
        )


def _fold_weights(model, levels):
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            flat = module.weight.flatten(1)
            scale = flat.abs().amax(1) / levels
            shape = (-1, *[1] * (module.weight.ndim - 1))
            integers = torch.round(module.weight / scale.view(shape)).to(torch.int8)
            module.weight = nn.Parameter(integers, requires_grad=False)
            dequantize = _Dequantize(scale.detach(), levels)
            nn.utils.parametrize.register_parametrization(module, "weight", dequantize, unsafe=True)
            holder = module.parametrizations.weight
            del holder.original  # as PT2E leaves folded weights: buffers, not parameters
            holder.register_buffer("original", integers)
    return model


def _run_each(run, samples) -> list[Array]:
    rows = [
        [leaf.numpy() for leaf in torch.utils._pytree.tree_leaves(run(*(tensor[i : i + 1] for tensor in samples)))]
        for i in range(len(samples[0]))
    ]
    return [np.stack(column) if column[0].ndim == 0 else np.concatenate(column) for column in zip(*rows, strict=True)]


def _save(path, **groups) -> None:
    np.savez(path, **{f"{key}_{i}": np.asarray(a) for key, group in groups.items() for i, a in enumerate(group)})


def _spec(name: str, array: Array, free: tuple[int | None, ...]) -> TensorSpec:
    shape = (*free, *array.shape[1:]) if array.ndim > 1 else ()
    return TensorSpec(name=name, dtype=str(array.dtype), shape=shape)


@cache
def cached_folder() -> Path:
    """One folder of programs for the whole test process, removed with it."""
    import atexit
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="edgekit-programs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def tiny_program(
    name: str,
    precision: Precision,
    *,
    dynamic_batch: bool = False,
    build: Callable[..., Program] = build_program,
    place: str = "here",
) -> Program:
    """Return the program of a tiny model, built once in a test process by each builder for each place."""
    return _built(build, place, name, precision, dynamic_batch)


@cache
def _built(build: Callable[..., Program], place: str, name: str, precision: Precision, dynamic_batch: bool) -> Program:
    folder = cached_folder() / place / f"{build.__module__}-{name}-{precision}-{dynamic_batch}"
    return build(name, precision, folder, dynamic_batch=dynamic_batch)
