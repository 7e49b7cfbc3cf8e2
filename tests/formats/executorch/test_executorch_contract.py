"""The format contract, with XNNPACK."""

from __future__ import annotations

import pytest
from contracts.format_contract import FormatContract, FormatContractFromKeras

from edgekit.formats.executorch.spec import SPEC

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


class TestExecutorchContract(FormatContract):
    spec = SPEC


class TestExecutorchContractFromKeras(FormatContractFromKeras):
    spec = SPEC
