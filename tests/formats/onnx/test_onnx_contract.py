"""ONNX keeps the contract of every format."""

from __future__ import annotations

import pytest
from contracts.format_contract import FormatContract, FormatContractFromKeras

from edgekit.formats.onnx.spec import SPEC

pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # torch, on copies


class TestOnnxContract(FormatContract):
    """ONNX Runtime's CPU provider."""

    spec = SPEC


class TestOnnxContractFromKeras(FormatContractFromKeras):
    spec = SPEC
