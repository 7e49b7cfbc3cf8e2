"""Plots: round ticks that cover the values, marks inside the picture, fronts that nothing beats."""

from __future__ import annotations

import re
from itertools import pairwise
from math import inf, nan
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.report.plots import HEIGHT, TOO_LARGE, WIDTH, Axis, Line, Point, curves, histogram, pareto, scatter, ticks

finite = st.floats(-1e9, 1e9, allow_nan=False, allow_infinity=False)
AXIS = Axis(title="a <title> & more", text=lambda value: f"{value:g}")


def point(x: float, y: float, label: str = "int8", **changes: object) -> Point:
    return Point(x=x, y=y, label=label, tip=f"{label}: {x}, {y}", series=1, **changes)  # type: ignore[arg-type]


@given(finite, finite)
def test_ticks_cover_the_range_evenly_and_few(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    steps = [right - left for left, right in pairwise(found)]
    slack = 1e-6 * max(abs(low), abs(high), 1e-9) + 1e-9
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert max(steps) - min(steps) <= slack


@pytest.mark.parametrize(("low", "high"), [(0.0, 5e-324), (-5e-324, 0.0), (1e30, 1e30), (2e-30, 2.5e-30), (7.0, 7.0)])
def test_ticks_cover_a_range_that_is_as_good_as_empty(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low + 1 / TOO_LARGE
    assert found[-1] >= high - 1 / TOO_LARGE
    assert found[-1] > found[0]


def test_ticks_are_round_in_their_unit() -> None:
    assert ticks(0, 160_000, unit=1024) == [0, 50 * 1024, 100 * 1024, 150 * 1024, 200 * 1024]
    assert ticks(5, 5) == pytest.approx([5.0, 5.2, 5.4, 5.6])


@given(st.lists(st.tuples(st.floats(0, 1e6), finite), min_size=1, max_size=20))
def test_scatter_is_xml_with_every_mark_inside_the_picture(pairs: list[tuple[float, float]]) -> None:
    root = ElementTree.fromstring(scatter([point(x, y) for x, y in pairs], AXIS, AXIS, higher_is_better=True))
    markers = [element for element in root if "marker" in element.attrib.get("class", "")]
    assert len(markers) == len(pairs)
    for element in markers:
        start = re.match(r"M(-?[\d.]+) (-?[\d.]+)", element.attrib["d"])
        assert start is not None
        assert 0 <= float(start[1]) <= WIDTH
        assert 0 <= float(start[2]) <= HEIGHT
    assert root.attrib["aria-label"] == "a <title> & more against a <title> & more"


@pytest.mark.parametrize("shares", [[0.9727, 0.9727], [1.0], [0.4, 1.0], [0.0], [0.999999]])
def test_axis_of_shares_ends_at_the_whole_and_holds_every_value(shares: list[float]) -> None:
    axis = Axis(title="accuracy", text=lambda value: f"{value:g}", most=1.0)
    root = ElementTree.fromstring(scatter([point(1, y) for y in shares], AXIS, axis, higher_is_better=True))
    upright = [text for text in root.iter("text") if text.get("class") == "tick end"]
    values = [float(text.text or "nan") for text in upright]
    assert len(values) >= 2
    assert values[0] <= min(shares)
    assert max(shares) <= values[-1] <= 1


def test_scatter_leaves_out_what_is_not_finite() -> None:
    text = scatter([point(1, nan), point(inf, 1), point(1, 1)], AXIS, AXIS, higher_is_better=True)
    assert text.count('class="marker') == 1
    assert scatter([point(nan, 1)], AXIS, AXIS, higher_is_better=True) == ""


def test_scatter_draws_broken_points_hollow_and_off_the_front() -> None:
    points = [point(1, 3, broken=True), point(2, 1), point(3, 2)]
    root = ElementTree.fromstring(scatter(points, AXIS, AXIS, higher_is_better=True))
    assert [element.attrib["class"] for element in root if element.tag == "path"] == [
        "marker s1 broken",
        "marker s1",
        "marker s1",
    ]
    (front,) = (element for element in root if element.tag == "polyline")
    assert len(front.attrib["points"].split()) == 2


def test_labels_are_left_out_when_they_would_cover_each_other() -> None:
    crowd = [point(1, 1, label="int8-dynamic") for _ in range(12)]
    assert 1 <= scatter(crowd, AXIS, AXIS, higher_is_better=True).count('class="label"') < 12


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=30), st.booleans())
def test_front_holds_exactly_what_no_point_beats(pairs: list[tuple[float, float]], higher: bool) -> None:
    points = [point(x, y) for x, y in pairs]
    sign = 1 if higher else -1

    def beaten(one: Point) -> bool:
        return any(
            other.x <= one.x and sign * other.y >= sign * one.y and (other.x, other.y) != (one.x, one.y)
            for other in points
        )

    front = {(one.x, one.y) for one in pareto(points, higher_is_better=higher)}
    assert front == {(one.x, one.y) for one in points if not beaten(one)}


@given(st.lists(st.one_of(st.none(), st.floats()), max_size=30))
def test_curve_is_xml_whatever_its_values(values: list[float | None]) -> None:
    text = curves([Line(name="a<b", values=values, series=0)], AXIS, "epoch", marks=[(0, "q&t")])
    known = [value for value in values if value is not None and abs(value) < TOO_LARGE]
    assert text.count("<circle") == len(known)
    if known:
        ElementTree.fromstring(text)


def test_curve_lifts_the_pen_when_a_value_is_missing() -> None:
    root = ElementTree.fromstring(curves([Line(name="a", values=[1, 2, None, 2, nan, 3], series=0)], AXIS, "epoch"))
    (path,) = (element.attrib["d"] for element in root if element.attrib.get("class") == "curve s0")
    assert path.count("M") == 3


def test_histogram_reaches_its_highest_bar_and_marks_zero() -> None:
    text = histogram([-1, 0, 1, 3], [2, 8, 4], "weights <a>", lambda edge: f"{edge:g}")
    root = ElementTree.fromstring(text)
    assert root.attrib["aria-label"] == "weights <a>"
    (bars,) = (element.attrib["d"] for element in root if element.attrib.get("class") == "bars")
    assert min(float(top) for top in re.findall(r"V([\d.]+)", bars)) == 3.0
    assert [element.text for element in root if element.tag == "text"] == ["-1", "3"]
    assert len([element for element in root if element.attrib.get("class") == "mark"]) == 1


@pytest.mark.parametrize(
    ("edges", "counts"), [([0, 1], [0]), ([], []), ([0, nan], [3]), ([1, 1], [3]), ([0, inf], [1])]
)
def test_histogram_is_empty_when_there_is_nothing_to_draw(edges: list[float], counts: list[int]) -> None:
    assert histogram(edges, counts, "t", str) == ""
