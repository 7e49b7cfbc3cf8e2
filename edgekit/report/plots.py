"""Plots as inline SVG: small, crisp on every screen, coloured by the page's style sheet, readable without scripts.

Every function returns ``Markup`` (safe to put into the page): all text in it was escaped here. Coordinates are
rounded to a tenth of a pixel, so that equal figures give equal bytes. What is not finite, or beyond ``TOO_LARGE``, is
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from markupsafe import Markup

TickText = Callable[[float], str]
"""Prints a value of an axis."""

TOO_LARGE = 1e30
WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 38
LABEL_HEIGHT, LABEL_ADVANCE = 12, 5.6
"""Size of a label's box: the height of a line, and the mean width of a character at 10 px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis: its title, how a value on it is printed, and the unit in which its ticks are round numbers.

    ``most`` is the largest value that there can be (1 for a share); no tick lies above it.
    """

    title: str
    text: TickText
    unit: float = 1.0
    most: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point of a scatter plot.

    Attributes:
        label: Written beside it where there is room.
        tip: Shown when it is pointed at.
        series: Which style it has, from 0.
        broken: Drawn hollow, and no part of the front.
    """

    x: float
    y: float
    label: str
    tip: str
    series: int
    broken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve: its name, its values by position, which style it has."""

    name: str
    values: Sequence[float | None]
    series: int


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps values to pixels, linearly."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, count: int = 4, unit: float = 1.0) -> list[float]:
    """Return round values (1, 2 or 5 times a power of ten units apart) that cover ``low`` to ``high``.

    Args:
        low: The smallest value to cover.
        high: The largest.
        count: About how many; at most ``count + 2`` are returned.
        unit: In which the values are round, such as 1024 for KiB.

    Example:
        >>> ticks(0.0, 0.95)
        [0.0, 0.5, 1.0]
    """
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1 / TOO_LARGE):
        high = max(high, low + (abs(low) * 0.1 if abs(low) > 1 / TOO_LARGE else 1.0))
    rough = (high - low) / unit / count
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = floor(low / unit / step + 1e-9), ceil(high / unit / step - 1e-9)
    return [float(f"{index * step:.12g}") * unit for index in range(first, last + 1)]


def _y_ticks(values: Sequence[float], axis: Axis) -> list[float]:
    """Return the ticks of an upright axis, none above what there can be."""
    low, high = min(values), max(values)
    if axis.most is None or high > axis.most:
        return ticks(low, high, unit=axis.unit)
    if high - low < 1e-6 * axis.most:  # as good as one value: make room below it, as there may be none above
        low = min(low, axis.most * 0.95)
    return [tick for tick in ticks(low, high, unit=axis.unit) if tick <= axis.most]


def _drawable(value: float) -> bool:
    """Tell whether a value can be drawn: finite, and no larger than arithmetic on it can bear."""
    return isfinite(value) and abs(value) < TOO_LARGE


def scatter(points: Sequence[Point], x: Axis, y: Axis, *, higher_is_better: bool) -> Markup:
    """Draw points and the front of those that no other beats on both axes (less x is always better).

    Args:
        points: At least one that is finite, else nothing is drawn.
        x: The axis on which less is better.
        y: The other axis.
        higher_is_better: Of y.
    """
    shown = [point for point in points if _drawable(point.x) and _drawable(point.y)]
    if not shown:
        return Markup("")
    x_ticks = ticks(min(0.0, *(p.x for p in shown)), max(p.x for p in shown) * 1.08, unit=x.unit)
    y_ticks = _y_ticks([point.y for point in shown], y)
    to_x = _Scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    to_y = _Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_frame(x, y, x_ticks, y_ticks, to_x, to_y)]
    front = pareto([point for point in shown if not point.broken], higher_is_better=higher_is_better)
    if len(front) > 1:
        path = " ".join(f"{to_x(p.x):.1f},{to_y(p.y):.1f}" for p in front)
        parts.append(Markup('<polyline class="front" points="{}"/>').format(path))
    placed: list[tuple[float, float, float, float]] = [(to_x(p.x) - 5, to_y(p.y) - 5, 10, 10) for p in shown]
    for point in shown:
        parts.append(_marker(point, to_x(point.x), to_y(point.y)))
        parts.append(_label(point.label, to_x(point.x), to_y(point.y), placed))
    return _svg(f"{y.title} against {x.title}", parts)


def pareto(points: Sequence[Point], *, higher_is_better: bool) -> list[Point]:
    """Return the points that no other beats (less x, better y), by x."""
    front: list[Point] = []
    sign = 1 if higher_is_better else -1
    for point in sorted(points, key=lambda p: (p.x, -sign * p.y)):
        if not front or sign * point.y > sign * front[-1].y:
            front.append(point)
    return front


def curves(lines: Sequence[Line], y: Axis, x_title: str, marks: Sequence[tuple[int, str]] = ()) -> Markup:
    """Draw curves over positions 1, 2, ...

    Args:
        lines: Of the same length; None leaves a gap.
        y: The axis of values.
        x_title: Of the axis of positions.
        marks: Positions (from 0) at which something begins, and what: drawn as upright lines.
    """
    values = [value for line in lines for value in line.values if value is not None and _drawable(value)]
    count = max((len(line.values) for line in lines), default=0)
    if not values or count == 0:
        return Markup("")
    y_ticks = _y_ticks(values, y)
    x_ticks = [tick for tick in ticks(1, max(count, 2)) if tick == int(tick) and 1 <= tick <= max(count, 2)]
    to_x = _Scale(1, max(count, 2), LEFT, WIDTH - RIGHT)
    to_y = _Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    x = Axis(title=x_title, text=lambda value: f"{value:g}")
    parts = [_frame(x, y, x_ticks, y_ticks, to_x, to_y)]
    for position, name in marks:
        left = to_x(position + 1)
        parts.append(_rule("mark", left, TOP, left, HEIGHT - BOTTOM))
        parts.append(_text("small", left + 3, TOP + 9, name))
    for line in lines:
        parts += _curve(line, y, to_x, to_y)
    return _svg(f"{y.title} over {x_title}", parts)


def _curve(line: Line, y: Axis, to_x: _Scale, to_y: _Scale) -> list[Markup]:
    path, pen_down = [], False
    dots = []
    for index, value in enumerate(line.values):
        if value is None or not _drawable(value):
            pen_down = False
            continue
        left, top = to_x(index + 1), to_y(value)
        path.append(f"{'L' if pen_down else 'M'}{left:.1f} {top:.1f}")
        pen_down = True
        tip = f"{line.name}, {index + 1}: {y.text(value)}"
        dots.append(
            Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="2.5" data-tip="{}"/>').format(
                line.series, left, top, tip
            )
        )
    curve = Markup('<path class="curve s{}" d="{}"/>').format(line.series, "".join(path))
    return [curve, *dots]


def histogram(edges: Sequence[float], counts: Sequence[int], title: str, text: Callable[[float], str]) -> Markup:
    """Draw a small histogram: bars from the ground, the range below, zero marked where it lies inside.

    Args:
        edges: ``[n + 1]``, rising.
        counts: ``[n]``.
        title: What it is of, for screen readers.
        text: Prints an edge.
    """
    highest = max(counts, default=0)
    if highest == 0 or not all(_drawable(edge) for edge in edges) or edges[-1] <= edges[0]:
        return Markup("")
    width, height, foot = 220, 70, 14
    to_x, to_y = _Scale(edges[0], edges[-1], 1, width - 1), _Scale(0, highest, height - foot, 3)
    path = [f"M{to_x(edges[0]):.1f} {height - foot}"]
    for left, right, count in zip(edges, edges[1:], counts, strict=False):
        path.append(f"V{to_y(count):.1f}H{to_x(right):.1f}" if left < right else "")
    path.append(f"V{height - foot}Z")
    parts = [Markup('<path class="bars" d="{}"/>').format("".join(path))]
    if edges[0] < 0 < edges[-1]:
        parts.append(_rule("mark", to_x(0), 3, to_x(0), height - foot))
    parts.append(_text("small", 1, height - 3, text(edges[0])))
    parts.append(_text("small end", width - 1, height - 3, text(edges[-1])))
    return _svg(title, parts, width, height)


def _svg(title: str, parts: Sequence[Markup], width: int = WIDTH, height: int = HEIGHT) -> Markup:
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, Markup("").join(parts)
    )


def _frame(x: Axis, y: Axis, x_ticks: Sequence[float], y_ticks: Sequence[float], to_x: _Scale, to_y: _Scale) -> Markup:
    parts = []
    for value in y_ticks:
        top = to_y(value)
        parts.append(_rule("grid", LEFT, top, WIDTH - RIGHT, top))
        parts.append(_text("tick end", LEFT - 5, top + 3, y.text(value)))
    parts += [_text("tick middle", to_x(value), HEIGHT - BOTTOM + 14, x.text(value)) for value in x_ticks]
    parts.append(_text("axis middle", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x.title))
    return Markup("").join(parts)


def _text(style: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(style, x, y, text)


def _rule(style: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(style, x1, y1, x2, y2)


def _marker(point: Point, left: float, top: float) -> Markup:
    """Draw a marker whose shape differs by series too, for those who cannot tell the colours apart."""
    shapes = (
        f"M{left - 5:.1f} {top:.1f}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z",
        f"M{left - 4.5:.1f} {top - 4.5:.1f}h9v9h-9Z",
        f"M{left:.1f} {top - 6:.1f}l6 6l-6 6l-6 -6Z",
        f"M{left:.1f} {top - 6:.1f}l6 10.5h-12Z",
    )
    style = f"s{point.series} broken" if point.broken else f"s{point.series}"
    shape = shapes[point.series % len(shapes)]
    return Markup('<path class="marker {}" d="{}" tabindex="0" data-tip="{}" aria-label="{}"/>').format(
        style, shape, point.tip, point.tip
    )


def _label(text: str, left: float, top: float, placed: list[tuple[float, float, float, float]]) -> Markup:
    """Write a label where it covers no marker and no other label; leave it out where there is no such place."""
    width = len(text) * LABEL_ADVANCE
    beside = ((left + 8, top - 6), (left - 8 - width, top - 6))
    above_or_below = ((left - width / 2, top - 19), (left - width / 2, top + 7))
    for x, y in (*beside, *above_or_below):
        box = (x, y, width, LABEL_HEIGHT)
        inside = x >= LEFT and x + width <= WIDTH and y >= 0 and y + LABEL_HEIGHT <= HEIGHT - BOTTOM + 4
        if inside and not any(_overlap(box, other) for other in placed):
            placed.append(box)
            return _text("label", x, y + 9.5, text)
    return Markup("")


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
