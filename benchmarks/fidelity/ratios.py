"""int8 against fp32: the estimated ratio beside published ones, on cores without and with the dot product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.fidelity import guests, predictions
from benchmarks.fidelity.rows import Key, published

# No single-threaded int8 figures of XNNPACK with a known core were found, so these are the nearest: of as many threads
# as the processor has large cores, which share its memory. The last two ran other runtimes or unnamed devices too.
PUBLISHED = (
    {
        "target": "raspberry-pi-4",
        "network": "mobilenet_v1",
        "ratio": 3.2,
        "source": "XNNPACK README, Raspberry Pi 4 (Cortex-A72), four threads: 77 and 24 ms",
    },
    {
        "target": "raspberry-pi-4",
        "network": "mobilenet_v2",
        "ratio": 2.7,
        "source": "XNNPACK README, Raspberry Pi 4 (Cortex-A72), four threads: 46 and 17 ms",
    },
    {
        "target": "pixel-4",
        "network": "mobilenet_v1",
        "ratio": 2.8,
        "source": "TensorFlow Lite documentation, Pixel 4 (Cortex-A76), four threads: 14.0 and 5.0 ms",
    },
    {
        "target": "pixel-4",
        "network": "mobilenet_v2",
        "ratio": 2.2,
        "source": "ExecuTorch, an Android phone that is not named, MobileNetV2: 11 and 5 ms",
    },
)


def xnnpack(layer: str) -> list[dict[str, Any]]:
    """Return each published ratio with the estimated one."""
    found = []
    for row in PUBLISHED:
        network, target = str(row["network"]), str(row["target"])
        times = {}
        for precision, name in (("fp32", network), ("int8", f"{network}_int8")):
            latency = predictions.profile_artifact(guests.xnnpack_model(name), target, layer).latency_ms
            times[precision] = latency.unanchored if latency is not None else float("nan")
        ratio = times["fp32"] / times["int8"]
        error = ratio / float(str(row["ratio"])) - 1
        found.append(
            {
                **row,
                "layer": layer,
                **{f"{precision}_ms": round(value, 2) for precision, value in times.items()},
                "estimated_ratio": round(ratio, 3),
                "error": round(error, 4),
            }
        )
    return found


def ncnn(predicted_ms: Mapping[Key, float], layer: str) -> list[dict[str, Any]]:
    """Return the fp32 (fp16 where the core has it) over int8 ratio of ncnn's rows, published and estimated."""
    figures = {row.key: row.published_ms for row in published("ncnn")}
    found = []
    for engine, device, network in figures:
        pair = ((engine, device, network), (engine, device, f"{network}_int8"))
        if all(key in figures and key in predicted_ms for key in pair):
            measured, estimated = (table[pair[0]] / table[pair[1]] for table in (figures, predicted_ms))
            found.append(
                {
                    "device": device,
                    "network": network,
                    "layer": layer,
                    "ratio": round(measured, 3),
                    "estimated_ratio": round(estimated, 3),
                    "error": round(estimated / measured - 1, 4),
                }
            )
    return found
