"""Read a ``.pte`` file, checked before the runtime touches it.

Layout (executorch/exir/_serialize/_program.py): a flatbuffer of schema ``program.fbs`` with the identifier ``ET12``
(offset 4), after it an extended header ``eh00`` (offset 8) that says where the flatbuffer ends and the segments lie.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize
from executorch.exir._serialize import _flatbuffer
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.exir.schema import String

from edgekit.errors import ArtifactError

XNNPACK = "XnnpackBackend"
INTERFACE_METHOD = "edgekit_interface"
"""A constant method of files that edgekit writes: JSON with the names and free axes of inputs and outputs."""
_IDENTIFIER = re.compile(rb"ET\d\d")
_HEADER_MAGIC = b"eh00"
_HEADER = struct.Struct("<4sIQQQ")
"""Magic, header length, size of the flatbuffer, offset of the first segment, size of all segments."""
_NOT_FINITE = re.compile(rb":\s*(-?(?:inf|nan))\b")
"""flatc prints infinities bare, which is not JSON."""
_PLAIN_HEADER_LENGTH = 24
"""Headers of this length do not say how large the segments are."""


@dataclass(frozen=True)
class PteFile:
    """A ``.pte`` file.

    Attributes:
        plan: The execution plan of ``forward`` (or of the only method): ``executorch.exir.schema.ExecutionPlan``.
        payloads: What each delegate of the plan was given.
        delegate_constants: Named constants of delegates and their sizes in bytes.
        interface: Names and free axes of inputs and outputs; empty in files of other tools.
    """

    plan: Any
    payloads: tuple[bytes, ...]
    delegate_constants: dict[str, int]
    interface: dict[str, Any]


def check_pte(path: Path) -> bytes:
    """Return a file's bytes if its headers and sizes fit together.

    Raises:
        ArtifactError: No such file, another kind of file, or a truncated one.
    """
    if not path.is_file():
        raise ArtifactError(f"expected an ExecuTorch program (.pte); there is no file {str(path)!r}")
    data = path.read_bytes()
    if len(data) < 8 + _HEADER.size or not _IDENTIFIER.fullmatch(data[4:8]):
        raise ArtifactError(
            f"expected an ExecuTorch program (.pte, with 'ET12' at byte 4); {str(path)!r} is of another kind or cut "
            f"off ({len(data)} bytes, {data[4:8]!r} at byte 4). Export it again"
        )
    magic, length, flatbuffer_size, segments_at, segments_size = _HEADER.unpack_from(data, 8)
    expected = struct.unpack_from("<I", data)[0] + 4
    if magic == _HEADER_MAGIC:
        segments_end = segments_at + (segments_size if length > _PLAIN_HEADER_LENGTH and segments_at else 0)
        expected = max(expected, flatbuffer_size, segments_end)
    if len(data) < expected:
        raise ArtifactError(
            f"expected at least {expected} bytes in {str(path)!r}, as its header says; received {len(data)}: the file "
            "is truncated. Export or copy it again"
        )
    return data


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Turn what readers of a damaged program stumble over into one error.

    A flatbuffer has no checksum: a wrong byte shows as an index, a name or a type that makes no sense, wherever it is
    first used.

    Raises:
        ArtifactError: Something inside the block did not fit.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, struct.error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ArtifactError(f"{str(path)!r} holds a damaged ExecuTorch program: {reason}. Export it again") from error


def read_pte(path: Path) -> PteFile:
    """Read the program of a file.

    Raises:
        ArtifactError: As :func:`check_pte`, or the program inside is damaged or has no method.
    """
    data = check_pte(path)
    with refusing_damage(path):
        return _parse(path, data)


def _parse(path: Path, data: bytes) -> PteFile:
    file = deserialize_pte_binary(data)
    plans = {plan.name: plan for plan in file.program.execution_plan}
    plan = plans.get("forward") or next((plan for name, plan in plans.items() if name != INTERFACE_METHOD), None)
    if plan is None:
        raise ArtifactError(f"expected a method in {str(path)!r}; the program has none")
    blobs = file.program.backend_delegate_data
    payloads = tuple(bytes(blobs[delegate.processed.index].data) for delegate in plan.delegates)
    named = file.named_data
    sizes = {name: len(named.buffers[entry.buffer_index]) for name, entry in named.pte_data.items()} if named else {}
    return PteFile(plan, payloads, sizes, _interface(plans.get(INTERFACE_METHOD)))


def _interface(plan: Any) -> dict[str, Any]:
    if plan is None or len(plan.outputs) != 1:
        return {}
    value = plan.values[plan.outputs[0]].val
    found = json.loads(value.string_val) if isinstance(value, String) else {}
    return found if found.get("schema_version") == 1 else {}


def read_xnnpack_payload(payload: bytes) -> dict[str, Any]:
    """Read the graph that the XNNPACK delegate was given (schema ``XN01``), as the JSON of its flatbuffer.

    Raises:
        ArtifactError: It is damaged or of a newer schema.
    """
    header_length = xnnpack_graph_serialize.XNNHeader.EXPECTED_LENGTH
    try:
        header = xnnpack_graph_serialize.XNNHeader.from_bytes(payload[:header_length])
        start = header.flatbuffer_offset
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            schema, binary = Path(folder) / "schema.fbs", Path(folder) / "graph.bin"
            schema.write_bytes(xnnpack_graph_serialize._get_schema_bytes())
            binary.write_bytes(payload[start : start + header.flatbuffer_size])
            _flatbuffer._flatc_decompile(folder, str(schema), str(binary), ["--raw-binary"])
            text = binary.with_suffix(".json").read_bytes()
        graph: dict[str, Any] = json.loads(_NOT_FINITE.sub(rb': "\1"', text))
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        raise ArtifactError(
            f"the program's XNNPACK graph cannot be read ({type(error).__name__}): it is damaged or of a newer "
            "version. Export it again"
        ) from error
    return graph
