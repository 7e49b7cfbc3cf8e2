"""Error bands: the core's own rows first, the widest where it has none, and nothing claimed where nobody judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import TargetError
from edgekit.targets.emulated.bands import ErrorBands, band_of, read_bands
from edgekit.targets.estimates import UNKNOWN, Band, estimate

BANDS = ErrorBands.model_validate(
    {
        "schema_version": 1,
        "cores": {
            "cortex-a73": {
                "static": {
                    "unanchored": {"rows": 8, "devices": 2, "median": 0.12, "max": 0.26},
                    "anchored": {"rows": 6, "devices": 2, "median": 0.03, "max": 0.08},
                }
            },
            "cortex-a55": {"static": {"unanchored": {"rows": 1, "devices": 1, "median": 0.4, "max": 0.4}}},
        },
    }
)


def test_band_is_the_largest_error_of_the_core_and_says_what_it_rests_on() -> None:
    found = band_of(BANDS, "cortex-a73", "static", anchored=False)
    assert found.error == 0.26
    assert found.basis == (
        "8 published rows of 2 devices with cortex-a73 that the static model was held out from (unanchored): "
        "error 12% median, 26% at most"
    )


def test_band_is_narrower_when_anchored() -> None:
    found = band_of(BANDS, "cortex-a73", "static", anchored=True)
    assert found.error == 0.08
    assert "(anchored)" in found.basis


def test_band_is_the_widest_of_all_cores_when_the_core_has_no_rows() -> None:
    found = band_of(BANDS, "cortex-x1", "static", anchored=False)
    assert found.error == 0.4
    assert found.basis.startswith(
        "no published row of cortex-x1: the widest band of all cores, 1 published row of 1 device"
    )
    assert "cortex-a55" in found.basis


def test_anchored_core_without_anchored_rows_takes_those_of_the_other_cores() -> None:
    found = band_of(BANDS, "cortex-a55", "static", anchored=True)
    assert found.error == 0.08
    assert "no published row of cortex-a55" in found.basis


def test_nothing_is_claimed_when_no_row_judges_the_layer() -> None:
    found = band_of(BANDS, "cortex-a73", "trace", anchored=False)
    assert found.error == UNKNOWN
    assert "nobody can say" in found.basis
    assert estimate(2.0, 1.0, (), found).high is None


def test_bands_without_a_file_have_no_rows(tmp_path: Path) -> None:
    assert read_bands(tmp_path / "none.json").cores == {}


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 2, "cores": {}}', '{"schema_version": 1}'])
def test_bands_error_names_the_file_when_it_is_broken(tmp_path: Path, content: str) -> None:
    file = tmp_path / "error_bands.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(TargetError, match=r"error_bands\.json: expected error bands"):
        read_bands(file)


def test_bands_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "error_bands.json"
    file.write_text(json.dumps(BANDS.model_dump(mode="json")), encoding="utf-8")
    assert read_bands(file) == BANDS


@given(st.floats(0.01, 1e4), st.floats(0.1, 10), st.floats(0, 0.99))
def test_true_time_at_the_edge_of_the_error_lies_at_the_edge_of_the_band(
    ms: float, factor: float, error: float
) -> None:
    found = estimate(ms, factor, (), Band(error=error, basis="rows"))
    assert found.high is not None
    assert found.low <= found.median <= found.high
    # an estimate that is too high by the error, and one that is too low by it
    assert found.low * (1 + error) == pytest.approx(found.median)
    assert found.high * (1 - error) == pytest.approx(found.median)


def test_estimate_says_what_it_is_anchored_on() -> None:
    found = estimate(10.0, 1.1, ("v1.tflite = 88 ms",), Band(error=0.1, basis="6 rows"))
    assert (found.median, found.unanchored) == (pytest.approx(11.0), 10.0)
    assert found.basis == "anchored on v1.tflite = 88 ms; 6 rows"
