"""The networks of ncnn's benchmark in ncnn's text format: `python -m benchmarks.fidelity.ncnn.networks FOLDER`.

Only the structure counts: benchncnn loads no weights either. Layers, their fusion with activations, and which int8
convolutions hand int8 on (term 102) or float (term 2) follow Tencent/ncnn `benchmark/models/*.param`; the text is made
here. Numbers of a layer's parameters: https://github.com/Tencent/ncnn/wiki/operation-param-weight-table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MAGIC = 7767517
INPUT_SIDE = 224
INPUT_SIDES = {"squeezenet": 227, "squeezenet_int8": 227}
INT8, INT8_TO_INT8 = 2, 102
DEPTHWISE_INT8, DEPTHWISE_INT8_TO_INT8 = 1, 101

V1_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
# Expansion, channels, repeats, stride of the first. The first expands by a 1x1 convolution too, unlike the paper's.
V2_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# Kernel, expanded channels, channels, squeeze-and-excitation, hard swish, stride.
V3_BLOCKS = (
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
)
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
POOL_BEFORE_FIRES = (0, 2, 4)
RESNET_STAGES = (64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Blob:
    """The output of a layer: channels of ``side`` x ``side``."""

    name: str
    channels: int
    side: int


@dataclass(slots=True)
class Network:
    """Layers as they are added; ncnn wants a Split layer wherever a blob has two readers."""

    lines: list[str] = field(default_factory=list)
    blobs: int = 0
    macs: int = 0

    def layer(
        self, kind: str, inputs: list[Blob], channels: int, side: int, outputs: int = 1, **numbers: int
    ) -> list[Blob]:
        """Add a layer. ``numbers``: parameter ids with a leading p, such as ``p0=32``; zeros are left out."""
        made = [Blob(f"b{self.blobs + index}", channels, side) for index in range(outputs)]
        self.blobs += outputs
        names = " ".join(blob.name for blob in (*inputs, *made))
        parameters = " ".join(f"{key[1:]}={value}" for key, value in numbers.items() if value)
        self.lines.append(f"{kind} l{len(self.lines)} {len(inputs)} {outputs} {names} {parameters}".rstrip())
        return made

    def input(self, size: int) -> Blob:
        return self.layer("Input", [], 3, size, p0=size, p1=size, p2=3)[0]

    def conv(
        self, x: Blob, channels: int, kernel: int = 1, stride: int = 1, pad: int = 0, relu: bool = True, int8: int = 0
    ) -> Blob:
        weights = channels * x.channels * kernel * kernel
        side = _convolved(x.side, kernel, stride, pad)
        self.macs += weights * side * side
        return self.layer(
            "Convolution",
            [x],
            channels,
            side,
            p0=channels,
            p1=kernel,
            p3=stride if stride > 1 else 0,
            p4=pad,
            p5=1,
            p6=weights,
            p8=int8,
            p9=int(relu),
        )[0]

    def depthwise(self, x: Blob, kernel: int, stride: int, relu: bool = True, int8: int = 0) -> Blob:
        side = _convolved(x.side, kernel, stride, kernel // 2)
        self.macs += x.channels * kernel * kernel * side * side
        return self.layer(
            "ConvolutionDepthWise",
            [x],
            x.channels,
            side,
            p0=x.channels,
            p1=kernel,
            p3=stride if stride > 1 else 0,
            p4=kernel // 2,
            p5=1,
            p6=x.channels * kernel * kernel,
            p7=x.channels,
            p8=int8,
            p9=int(relu),
        )[0]

    def dense(self, x: Blob, units: int, relu: bool = False, int8: int = 0) -> Blob:
        weights = units * x.channels
        self.macs += weights
        return self.layer("InnerProduct", [x], units, 1, p0=units, p1=1, p2=weights, p8=int8, p9=int(relu))[0]

    def unary(self, kind: str, x: Blob, **numbers: int) -> Blob:
        return self.layer(kind, [x], x.channels, x.side, **numbers)[0]

    def average(self, x: Blob) -> Blob:
        return self.layer("Pooling", [x], x.channels, 1, p0=1, p4=1)[0]

    def largest(self, x: Blob) -> Blob:
        """Largest of 3 x 3 with stride 2; ncnn pads where the last window would be cut."""
        return self.layer("Pooling", [x], x.channels, -(-(x.side - 3) // 2) + 1, p1=3, p2=2)[0]

    def split(self, x: Blob) -> list[Blob]:
        return self.layer("Split", [x], x.channels, x.side, outputs=2)

    def binary(self, kind: str, left: Blob, right: Blob, operation: int = 0) -> Blob:
        return self.layer(kind, [left, right], left.channels, left.side, p0=operation)[0]

    def text(self) -> str:
        return "\n".join([str(MAGIC), f"{len(self.lines)} {self.blobs}", *self.lines]) + "\n"


def _convolved(side: int, kernel: int, stride: int, pad: int) -> int:
    return (side + 2 * pad - kernel) // stride + 1


def mobilenet(int8: bool = False) -> Network:
    """MobileNet v1, batch norm folded."""
    net = Network()
    x = net.conv(net.input(INPUT_SIDE), 32, 3, 2, 1, int8=INT8_TO_INT8 if int8 else 0)
    for index, (channels, stride) in enumerate(V1_BLOCKS):
        x = net.depthwise(x, 3, stride, int8=DEPTHWISE_INT8_TO_INT8 if int8 else 0)
        handed_on = INT8 if index == len(V1_BLOCKS) - 1 else INT8_TO_INT8
        x = net.conv(x, channels, int8=handed_on if int8 else 0)
    net.unary("Softmax", net.dense(net.average(x), 1000, int8=INT8 if int8 else 0))
    return net


def mobilenet_v2() -> Network:
    """MobileNet v2 with a ReLU, batch norm folded."""
    net = Network()
    x = net.conv(net.input(INPUT_SIDE), 32, 3, 2, 1)
    for expansion, channels, repeats, first_stride in V2_STAGES:
        for block in range(repeats):
            stride = first_stride if block == 0 else 1
            residual = stride == 1 and x.channels == channels
            kept, x = net.split(x) if residual else (x, x)
            x = net.depthwise(net.conv(x, expansion * x.channels), 3, stride)
            x = net.conv(x, channels, relu=False)
            x = net.binary("Eltwise", kept, x, operation=1) if residual else x
    net.unary("Softmax", net.dense(net.average(net.conv(x, 1280)), 1000))
    return net


def _gate(net: Network, x: Blob) -> Blob:
    """Squeeze and excite, before the activation; a quarter of the channels between."""
    kept, squeezed = net.split(x)
    squeezed = net.unary("Reshape", net.average(squeezed), p0=x.channels)
    hidden = net.dense(squeezed, x.channels // 4, relu=True)
    gate = net.unary("HardSigmoid", net.dense(hidden, x.channels))
    return net.binary("BinaryOp", kept, net.unary("Reshape", gate, p0=1, p1=1, p2=x.channels), operation=2)


def mobilenet_v3() -> Network:
    """MobileNet v3 large."""
    net = Network()
    kept, gate = net.split(net.conv(net.input(INPUT_SIDE), 16, 3, 2, 1, relu=False))
    kept, x = net.split(net.binary("BinaryOp", kept, net.unary("HardSigmoid", gate), operation=2))
    x = net.binary("BinaryOp", kept, net.conv(net.depthwise(x, 3, 1), 16, relu=False))
    for kernel, expanded, channels, gated, swished, stride in V3_BLOCKS:
        residual = stride == 1 and x.channels == channels
        kept, x = net.split(x) if residual else (x, x)
        x = net.conv(x, expanded, relu=not swished)
        x = net.unary("HardSwish", x) if swished else x
        x = net.depthwise(x, kernel, stride, relu=not (swished or gated))
        x = _gate(net, x) if gated else x
        if swished or gated:
            x = net.unary("HardSwish" if swished else "ReLU", x)
        x = net.conv(x, channels, relu=False)
        x = net.binary("BinaryOp", kept, x) if residual else x
    x = net.average(net.unary("HardSwish", net.conv(x, 960, relu=False)))
    x = net.unary("Reshape", net.unary("HardSwish", x), p0=-1)
    net.unary("Softmax", net.dense(net.unary("HardSwish", net.dense(x, 1280)), 1000))
    return net


def squeezenet(int8: bool = False) -> Network:
    """SqueezeNet v1.1."""
    net = Network()
    to_float, to_int8 = (INT8, INT8_TO_INT8) if int8 else (0, 0)
    x = net.conv(net.input(INPUT_SIDES["squeezenet"]), 64, 3, 2, int8=to_float)
    for index, (squeezed, expanded) in enumerate(FIRES):
        if index in POOL_BEFORE_FIRES:
            x = net.largest(x)
        wide, narrow = net.split(net.conv(x, squeezed, int8=to_int8))
        ones = net.conv(narrow, expanded, int8=to_float)
        threes = net.conv(wide, expanded, 3, pad=1, int8=to_float)
        x = net.layer("Concat", [ones, threes], 2 * expanded, ones.side)[0]
    # The published file pads its 1x1 classifier by one pixel.
    net.unary("Softmax", net.average(net.conv(x, 1000, pad=1, int8=to_float)))
    return net


def resnet18(int8: bool = False) -> Network:
    """ResNet-18, batch norm folded."""
    net = Network()
    to_float, to_int8 = (INT8, INT8_TO_INT8) if int8 else (0, 0)
    x = net.conv(net.input(INPUT_SIDE), 64, 7, 2, 3, int8=to_float)
    x = net.largest(x)
    for channels in RESNET_STAGES:
        for block in range(2):
            stride = 2 if block == 0 and channels > RESNET_STAGES[0] else 1
            short, x = net.split(x)
            if block == 0:
                short = net.conv(short, channels, 1, stride, relu=False, int8=to_float)
            x = net.conv(x, channels, 3, stride, 1, int8=to_int8)
            x = net.conv(x, channels, 3, 1, 1, relu=False, int8=to_float)
            x = net.unary("ReLU", net.binary("Eltwise", short, x, operation=1))
    x = net.layer("Pooling", [x], x.channels, 1, p0=1, p1=7)[0]
    net.unary("Softmax", net.dense(x, 1000))
    return net


NETWORKS: dict[str, Callable[[], Network]] = {
    "mobilenet": mobilenet,
    "mobilenet_int8": lambda: mobilenet(int8=True),
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "squeezenet": squeezenet,
    "squeezenet_int8": lambda: squeezenet(int8=True),
    "resnet18": resnet18,
    "resnet18_int8": lambda: resnet18(int8=True),
}


def ensure(name: str, folder: Path) -> Path:
    """Write a network's file and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.param"
    path.write_text(NETWORKS[name]().text())
    return path


def main() -> int:
    for name in NETWORKS:
        sys.stdout.write(f"{ensure(name, Path(sys.argv[1]))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
