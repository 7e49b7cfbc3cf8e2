"""The format contract, with Core ML; what needs its runtime is skipped except on a Mac."""

from __future__ import annotations

import pytest
from contracts.format_contract import FormatContract

from edgekit.formats.coreml.spec import SPEC

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


class TestCoremlContract(FormatContract):
    spec = SPEC
