"""Two builds on one page: one HTML file that needs nothing else, for phones and desktops, light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgekit.budget.figures import FIGURES, place_text, targets_of
from edgekit.records import Manifest
from edgekit.report import drawings, overview
from edgekit.report.compare import ComparedArtifact, ComparedFigure, Comparison, compare_builds, is_wrong
from edgekit.report.html import page_environment

HEADLINES = ("size", "latency_p50", "instructions", "accuracy", "sqnr_db", "delegated")
"""The figures that stand side by side for every artifact; the details have the others."""

DRAWN = ("size", "latency_p50", "instructions")
"""Those of them that are drawn as bars: they start at zero and differ by more than a hair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A headline figure, on a target where it belongs to one."""

    name: str
    target: str | None
    place: str = ""

    @property
    def title(self) -> str:
        """Such as ``p50 latency · host (measured)``."""
        title = FIGURES[self.name].title
        return f"{title} · {self.place}" if self.place else title


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A headline figure of both builds as text, the length of its bars (0 to 1), and which is ahead (0, 1, None)."""

    texts: tuple[str, str]
    shares: tuple[float, float]
    ahead: int | None
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """One artifact: its standing in each build (None where a build has none) and its headline figures."""

    id: str
    standings: tuple[overview.Standing | None, overview.Standing | None]
    pairs: tuple[Pair | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Of how many artifacts each build has the better figure, of how many neither, of how many nobody can say."""

    title: str
    first: int
    second: int
    even: int
    unknown: int


def render_comparison(before: Manifest, after: Manifest) -> str:
    """Render two builds side by side.

    Args:
        before: The first build.
        after: The second.

    Returns:
        The whole page: no other file, no network, the same bytes for the same builds.
    """
    comparison = compare_builds(before, after)
    columns = headline_columns(comparison, targets_of((*before.artifacts, *after.artifacts)))
    return (
        page_environment()
        .get_template("compare.html.j2")
        .render(
            comparison=comparison,
            edgekit_version=after.edgekit_version,
            columns=columns,
            drawn=[index for index, column in enumerate(columns) if column.name in DRAWN],
            rows=pair_rows(comparison, columns, before, after),
            tallies=tallies(comparison, columns, before, after),
            training_plots=drawings.compared_training_plots(before.training, after.training, comparison.heads),
            kinds=overview.kinds_of((*before.artifacts, *after.artifacts)),
            standing_words=overview.STANDING_WORDS,
        )
    )


def headline_columns(comparison: Comparison, targets: Iterable[str]) -> tuple[Column, ...]:
    """Return the headline figures that at least one artifact of either build has."""
    found = [figure for artifact in comparison.artifacts for figure in artifact.figures]
    kinds: dict[tuple[str, str | None], list[str | None]] = {}
    for figure in found:
        kinds.setdefault((figure.name, figure.target), []).extend((figure.before_kind, figure.after_kind))
    places = tuple(targets)
    wanted = [(name, target) for name in HEADLINES for target in (places if FIGURES[name].per_target else (None,))]
    return tuple(
        Column(name=name, target=target, place=place_text(target, kinds[name, target]))
        for name, target in wanted
        if (name, target) in kinds
    )


def pair_rows(
    comparison: Comparison, columns: tuple[Column, ...], before: Manifest, after: Manifest
) -> tuple[PairRow, ...]:
    """Return one row an artifact of either build."""
    longest = [_longest(comparison, column) for column in columns]
    standings = [{report.id: overview.standing_of(report) for report in build.artifacts} for build in (before, after)]
    return tuple(
        PairRow(
            id=artifact.id,
            standings=(standings[0].get(artifact.id), standings[1].get(artifact.id)),
            pairs=tuple(
                _pair(comparison, _figure(artifact, column), most)
                for column, most in zip(columns, longest, strict=True)
            ),
        )
        for artifact in comparison.artifacts
    )


def tallies(
    comparison: Comparison, columns: tuple[Column, ...], before: Manifest, after: Manifest
) -> tuple[Tally, ...]:
    """Count for each headline figure how often each build is ahead, among artifacts that both have.

    One that does not agree with its model wins nothing: it counts among those of which nobody can say.
    """
    wrong = {report.id for build in (before, after) for report in build.artifacts if is_wrong(report)}
    return tuple(_tally(comparison, column, wrong) for column in columns)


def _tally(comparison: Comparison, column: Column, wrong: set[str]) -> Tally:
    both = [artifact for artifact in comparison.artifacts if artifact.standing == "both"]
    found = [None if artifact.id in wrong else _figure(artifact, column) for artifact in both]
    words = [figure.standing for figure in found if figure is not None]
    return Tally(
        title=column.title,
        first=words.count("worse"),
        second=words.count("better"),
        even=words.count("same") + words.count("within noise"),
        unknown=len(found) - sum(words.count(word) for word in ("worse", "better", "same", "within noise")),
    )


def _figure(artifact: ComparedArtifact, column: Column) -> ComparedFigure | None:
    places = {(figure.name, figure.target): figure for figure in artifact.figures}
    return places.get((column.name, column.target))


def _longest(comparison: Comparison, column: Column) -> float:
    found = (_figure(artifact, column) for artifact in comparison.artifacts)
    return max(
        (value for figure in found if figure for value in (figure.before or 0.0, figure.after or 0.0)), default=0
    )


def _pair(comparison: Comparison, figure: ComparedFigure | None, most: float) -> Pair | None:
    if figure is None:
        return None
    mixed = None not in (figure.before_kind, figure.after_kind) and figure.before_kind != figure.after_kind
    return Pair(
        texts=figure.texts,
        # bars of two kinds of number side by side would be a comparison that nobody can make
        shares=(0.0, 0.0) if mixed else (_share(figure.before, most), _share(figure.after, most)),
        ahead={"worse": 0, "better": 1}.get(figure.standing),
        word=f"{figure.title}: {figure.change}, {comparison.word(figure.standing)}".replace(": ,", ":"),
    )


def _share(value: float | None, most: float) -> float:
    return 0.0 if value is None or most <= 0 else max(0.0, min(1.0, value / most))
