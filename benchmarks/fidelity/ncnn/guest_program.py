"""Run one network of ncnn's benchmark as benchncnn does. Runs inside the emulated aarch64 Python, not on this machine.

`guest_program.py NETWORK.param SIDE`: one warm-up, then one marked inference. Options are benchncnn's: one thread,
light mode; what ncnn chooses by itself (half precision, Winograd, packing) is left to it.
"""

import ctypes
import sys

import ncnn  # type: ignore[import-not-found]  # on the guest only

MARKER_SYSCALL = 5000
STEADY_BEGIN, STEADY_END = 3, 4

_syscall = ctypes.CDLL(None).syscall
_syscall.restype = ctypes.c_long


def mark(kind: int) -> None:
    """Tell the counting plugin where the inference begins and ends."""
    _syscall(ctypes.c_long(MARKER_SYSCALL), ctypes.c_ulong(kind), ctypes.c_ulong(0), ctypes.c_ulong(0))


def load(path: str) -> ncnn.Net:
    net = ncnn.Net()
    net.opt.lightmode = True
    net.opt.num_threads = 1
    net.opt.use_vulkan_compute = False
    net.load_param(path)
    net.load_model(ncnn.DataReaderFromEmpty())
    return net


def main() -> None:
    path, side = sys.argv[1], int(sys.argv[2])
    ncnn.set_omp_num_threads(1)
    net = load(path)
    image = ncnn.Mat((side, side, 3))
    image.fill(0.01)
    source, sink = net.input_names()[0], net.output_names()[0]

    def infer() -> ncnn.Mat:
        extractor = net.create_extractor()
        extractor.input(source, image)
        return extractor.extract(sink)[1]

    infer()
    mark(STEADY_BEGIN)
    output = infer()
    mark(STEADY_END)
    if output.w != 1000:
        sys.exit(f"expected 1000 classes, received {output.w}")


main()
