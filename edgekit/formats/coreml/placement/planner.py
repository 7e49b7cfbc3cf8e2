"""Which of the units that can take an operation is expected to, and what follows from it: segments and transfers.

What is published of Core ML's planner: it weighs what the operations cost (``MLComputePlan`` has a weight for each),
keeps long runs on the Neural Engine (https://github.com/hollance/neural-engine: "If possible, Core ML will run the
entire model on the ANE", and every switch "involves overhead"), and leaves small work to the CPU although the Neural
Engine could take it (https://github.com/vx-lang/Vx/issues/435: a float16 product of 512 x 512 matrices goes to the
Neural Engine, "CoreML picks the CPU at 384 and below"). How it weighs is not published.

So this is a stand-in of the same shape: each unit has a rate, a bandwidth and a price for handing work over; the
operations are put into an order in which those only the CPU takes come together; and the cheapest assignment along that
order is found exactly, by dynamic programming. Its figures are round ones of the class of chips.

How often it agrees with plans that Core ML made elsewhere is counted by ``benchmarks/coreml/placement``. Which units
*can* take an operation is the better part of a placement; which one is preferred is a guess, above all for attention,
which Core ML leaves to the CPU up to larger sizes than this does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.formats.coreml.placement.facts import STATES, OperationFacts
from edgekit.formats.coreml.placement.rules import UnitCost
from edgekit.records import Unit

_FUSED = frozenset({"cast", "dequantize", "expand_dims", "identity", "quantize", "reshape", "squeeze"})
Choice = tuple[Unit, ...]
"""Units that can take an operation."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What was decided.

    Attributes:
        units: Of each operation, in execution order.
        segments: The number of each operation's segment, counted in the order in which they run.
        costs_us: What each operation takes on its unit, in microseconds of the planner's round figures.
    """

    units: tuple[Unit, ...]
    segments: tuple[int, ...]
    costs_us: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Transfers:
    """Values that another unit reads than the one that made them.

    Attributes:
        count: How many; one for each unit that reads it.
        bytes: Their size; values of free shape left out.
    """

    count: int
    bytes: int


def assign(facts: Sequence[OperationFacts], units: Sequence[Choice], prices: Mapping[Unit, UnitCost]) -> Assignment:
    """Choose a unit for each operation.

    Args:
        facts: The operations, in execution order.
        units: Which units can take each; never empty.
        prices: What units cost.
    """
    order = _grouped(facts, _leading_to(facts, units))
    chosen = _cheapest([facts[index] for index in order], [units[index] for index in order], prices)
    by_index = dict(zip(order, chosen, strict=True))
    placed = tuple(by_index[index] for index in range(len(facts)))
    costs = tuple(cost_us(item, unit, prices) for item, unit in zip(facts, placed, strict=True))
    return Assignment(placed, number_segments(facts, placed), costs)


def cost_us(facts: OperationFacts, unit: Unit, prices: Mapping[Unit, UnitCost]) -> float:
    """Return what an operation takes on a unit, in microseconds: the longer of computing and moving bytes.

    Casts, changes of shape and steps onto and off integers take nothing: they are taken to be part of the operations
    around them.
    """
    if facts.operation.type in _FUSED:
        return 0.0
    price = prices[unit]
    moved = facts.operator.weight_bytes + facts.activation_bytes
    return max(facts.operator.macs / price.gmacs_s.value, moved / price.gbytes_s.value) / 1e3


def number_segments(facts: Sequence[OperationFacts], placed: Sequence[Unit]) -> tuple[int, ...]:
    """Number the segments: as many operations as are ready run on one unit before the next unit takes over.

    Whichever unit begins, the numbering with the fewest segments is returned.
    """
    choices: list[Choice] = [(unit,) for unit in placed]
    found = [_numbers(_grouped(facts, choices, first), placed) for first in dict.fromkeys(choices)]
    return min(found, key=max, default=())


def _numbers(order: Sequence[int], placed: Sequence[Unit]) -> tuple[int, ...]:
    numbers = [0] * len(placed)
    current, last = -1, None
    for index in order:
        if placed[index] != last:
            current, last = current + 1, placed[index]
        numbers[index] = current
    return tuple(numbers)


def transfers(facts: Sequence[OperationFacts], placed: Sequence[Unit]) -> Transfers:
    """Count the values that change units. Inputs and outputs of the program are not counted."""
    made_on: dict[str, Unit] = {}
    moved: dict[tuple[str, Unit], int] = {}
    for item, unit in zip(facts, placed, strict=True):
        for tensor in item.inputs:
            if made_on.get(tensor.name, unit) != unit:
                moved[tensor.name, unit] = tensor.bytes
        made_on.update((tensor.name, unit) for tensor in item.outputs)
    return Transfers(len(moved), sum(moved.values()))


def _grouped(facts: Sequence[OperationFacts], units: Sequence[Choice], first: Choice | None = None) -> list[int]:
    """Order operations so that those with the same choice of units follow each other as far as values allow.

    An operation that only the CPU takes, and that waits for nothing, would otherwise cut a run in two for no reason.
    The bodies of a loop or condition stay together, behind it.
    """
    waiting, readers = _dependencies(facts)
    ready = [index for index in range(len(facts)) if not waiting[index]]
    order: list[int] = []
    choice = first
    while ready:
        same = [index for index in ready if units[index] == choice]
        if not same:
            # whoever only one unit takes goes first: the long run is not cut for it later
            choice = units[min(ready, key=lambda index: (len(units[index]), index))]
            continue
        index = min(same)
        ready.remove(index)
        order.append(index)
        for reader in readers[index]:
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    return order


def _leading_to(facts: Sequence[OperationFacts], units: Sequence[Choice]) -> list[Choice]:
    """Return the choice of each operation for the order: of what only leads to narrower choices, that of its readers.

    So the cast of an input goes with the operation of the CPU that reads it, and not with other casts.
    """
    _, readers = _dependencies(facts)
    found = list(units)
    for index in reversed(range(len(facts))):
        following = {found[reader] for reader in readers[index]}
        if len(following) == 1 and set(next(iter(following))) < set(found[index]):
            found[index] = next(iter(following))
    return found


def _dependencies(facts: Sequence[OperationFacts]) -> tuple[list[int], list[list[int]]]:
    """Return how many operations each one waits for, and which ones wait for each."""
    makers: dict[str, int] = {}
    readers: list[list[int]] = [[] for _ in facts]
    waiting = [0] * len(facts)
    last_state: int | None = None
    for index, item in enumerate(facts):
        before = {makers[tensor.name] for tensor in item.inputs if tensor.name in makers}
        if item.inside is not None and index:
            before.add(index - 1)
        if index and facts[index - 1].inside is not None:
            before.add(index - 1)
        if item.operation.type in STATES:
            before |= set() if last_state is None else {last_state}
            last_state = index
        for maker in before:
            readers[maker].append(index)
        waiting[index] = len(before)
        makers.update((tensor.name, index) for tensor in item.outputs)
    return waiting, readers


def _cheapest(facts: Sequence[OperationFacts], units: Sequence[Choice], prices: Mapping[Unit, UnitCost]) -> list[Unit]:
    """Find the cheapest units along an order. Inputs lie with the CPU; handing back to it costs nothing.

    Of equals the accelerator is taken: Core ML has the casts around a run on the Neural Engine on the Neural Engine too
    (https://github.com/vx-lang/Vx/issues/435).
    """
    totals: dict[Unit, float] = {"cpu": 0.0}
    steps: list[dict[Unit, Unit]] = []
    for item, allowed in zip(facts, units, strict=True):
        reached: dict[Unit, tuple[float, Unit]] = {}
        for unit in reversed(allowed):
            ways = (
                (total + (0.0 if last == unit else _entering_us(prices[unit])), last) for last, total in totals.items()
            )
            spent, last = min(ways, key=lambda way: way[0])
            reached[unit] = spent + cost_us(item, unit, prices), last
        totals = {unit: total for unit, (total, _) in reached.items()}
        steps.append({unit: last for unit, (_, last) in reached.items()})
    unit = min(totals, key=totals.__getitem__)
    chosen: list[Unit] = []
    for step in reversed(steps):
        chosen.append(unit)
        unit = step[unit]
    return chosen[::-1]


def _entering_us(price: UnitCost) -> float:
    return price.enter_us.value if price.enter_us is not None else 0.0
