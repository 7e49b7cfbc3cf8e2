"""Execute a saved ML program on any machine: the reference evaluator.

Core ML's runtime exists on Apple's systems only. This package reads what is on disk, the specification
(``model.mlmodel``, a protobuf) and the constants beside it (``weights/weight.bin``), and executes every operation on
the CPU through torch, with the semantics that coremltools documents for the operation in its operation set (opset).
It is a reference for values, never for time: nothing about speed on a device follows from it.

========================= =======================================================================================
file                      what it does
========================= =======================================================================================
``graph.py``              values, operations, blocks, functions: a light graph of our own, no protobuf in it
``constants.py``          constants from the specification and from weight files, checked against their types
``load.py``               package -> graph
``check.py``              every name defined before it is used, every operation known, blocks not nested too deep
``registry.py``           ``@operation(...)``: the table of operations, and what each of them is called with
``operations/``           the operations, one file a family
``prepare.py``            graph + arithmetic -> steps: compression operations carried out once, dead values freed
``execute.py``            ``Evaluator``: runs a function of a package
``interface.py``          which inputs a function takes: dtypes, ranges and lists of shapes
``precision.py``          where half precision overflows, and what it costs, operation by operation
``coverage.py``           the table of operations against coremltools' own registry
========================= =======================================================================================

Arithmetic. Tensors of floating point are held in float32. After each operation the result is rounded to what it is
held in (``compute``):

* ``declared``: to float16 where the program declares float16, as the GPU and the Neural Engine hold it;
* ``fp16``: to float16 everywhere, which shows what a float32 program would lose;
* ``fp32``: never.

Sums inside one operation (convolutions, products of matrices, means, normalisations) are accumulated in float32 and
rounded once. How Apple's units accumulate is not published; one that accumulates in float16 loses more than this.

Integers are computed in the declared type, except uint16 (in int32) and uint32 (in int64), which torch computes
little with. Random operations give values of the right distribution, the same in every run, but not Core ML's own.

Sources: the docstrings of ``coremltools.converters.mil.mil.ops.defs`` (published as "MIL ops" at
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html), and the expected values in the
tests that coremltools installs beside them.
"""

from __future__ import annotations

from edgekit.formats.coreml.evaluator.execute import Evaluator
from edgekit.formats.coreml.evaluator.precision import PrecisionReport, analyse_precision
from edgekit.records import Compute

__all__ = ["Compute", "Evaluator", "PrecisionReport", "analyse_precision"]
