"""TFLite keeps the contract of every format."""

from __future__ import annotations

import pytest
from contracts.format_contract import FormatContract, FormatContractFromKeras

from edgekit.formats.tflite.spec import SPEC

pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # torch, on copies


class TestTfliteContract(FormatContract):
    """XNNPACK through LiteRT's interpreter."""

    spec = SPEC


class TestTfliteContractFromKeras(FormatContractFromKeras):
    spec = SPEC
