"""The format contract, with Core ML; where its runtime does not exist, with the reference evaluator."""

from __future__ import annotations

from typing import ClassVar

import pytest
from contracts.format_contract import FormatContract, FormatContractFromKeras

from edgekit.formats.coreml.spec import SPEC

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


HALF_PRECISION: dict[str, float] = {**FormatContract.min_sqnr_db, "w8": 55.0, "w4": 55.0}
"""Weights of few bits are computed with in float16."""


class TestCoremlContract(FormatContract):
    spec = SPEC
    min_sqnr_db: ClassVar[dict[str, float]] = HALF_PRECISION
    max_steps = 1.07  # float16 moves a scale by 1/2048 at most: 0.06 of a step, 127 steps from zero


class TestCoremlContractFromKeras(FormatContractFromKeras):
    spec = SPEC
    min_sqnr_db: ClassVar[dict[str, float]] = HALF_PRECISION
    max_steps = 1.07  # float16 moves a scale by 1/2048 at most: 0.06 of a step, 127 steps from zero
