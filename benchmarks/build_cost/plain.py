"""One artifact of MobileNetV2 by the converter's own calls, as its documentation shows them: `plain.py CELL FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from sample_models.mobilenet_v2.data import load
from sample_models.mobilenet_v2.model_pytorch import build

SAMPLES = 16


def source() -> tuple[torch.nn.Module, torch.Tensor]:
    images = load().train.batch(range(SAMPLES))[0][0]
    return build().eval(), torch.from_numpy(images)


def quantized(model: torch.nn.Module, images: torch.Tensor, *, fold: bool) -> torch.nn.Module:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(model, (images[:1],)).module(), quantizer)
    with torch.no_grad():
        for image in images:
            prepared(image[None])
    return convert_pt2e(prepared, fold_quantize=fold)


def tflite(model: torch.nn.Module, images: torch.Tensor, *, int8: bool, path: Path) -> None:
    import litert_torch
    from litert_torch.quantize import pt2e_quantizer
    from litert_torch.quantize.quant_config import QuantConfig

    settings: dict[str, Any] = {}
    if int8:
        model = quantized(model, images, fold=False)
        scheme = pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True)
        settings["quant_config"] = QuantConfig(pt2e_quantizer=pt2e_quantizer.PT2EQuantizer().set_global(scheme))
    litert_torch.convert(model, (images[:1],), **settings).export(str(path))


def executorch(model: torch.nn.Module, images: torch.Tensor, *, int8: bool, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    if int8:
        model = quantized(model, images, fold=True)
    program = torch.export.export(model, (images[:1],))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


def coreml(model: torch.nn.Module, images: torch.Tensor, *, int8: bool, path: Path) -> None:
    import coremltools

    if int8:
        model = quantized(model, images, fold=True)
    program = torch.export.export(model, (images[:1],)).run_decompositions({})
    target = coremltools.target.iOS17
    precision = coremltools.precision.FLOAT32
    coremltools.convert(program, minimum_deployment_target=target, compute_precision=precision).save(str(path))


def main() -> None:
    name, _, precision = sys.argv[1].partition("-")
    suffix = {"tflite": ".tflite", "executorch": ".pte", "coreml": ".mlpackage"}[name]
    model, images = source()
    convert = {"tflite": tflite, "executorch": executorch, "coreml": coreml}[name]
    convert(model, images, int8=precision == "int8", path=Path(sys.argv[2]) / f"plain-{precision}{suffix}")


if __name__ == "__main__":
    main()
