"""How images are divided into ranges: pure decisions, without Dagster, database or store.

A run costs seconds to launch and an image milliseconds, so images are processed in ranges of
partition keys. A range also covers what lies between: a finished image costs only its bookkeeping,
so ranges are merged until that outweighs another run. An image that must stay out of a run
(rejected, or already taken by another run) ends a range. `requests` makes runs of the ranges.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf

# Another run costs 3 to 8 s, a finished image in a range 1.5 ms.
MOST_DONE_BETWEEN = 2_000


@dataclass(frozen=True)
class Range:
    """A range of partition keys, both ends included, in the order of the partition set.

    Attributes:
        wanted: The keys in the range to be processed.
    """

    start: str
    end: str
    wanted: tuple[str, ...]


def plan_ranges(
    wanted: Collection[str],
    known: Sequence[str],
    *,
    blocked: Collection[str] = (),
    most: int = 1_000,
    seconds: Mapping[str, float] | None = None,
    most_seconds: float = inf,
    most_between: int = MOST_DONE_BETWEEN,
) -> list[Range]:
    """Cover the wanted partition keys with as few ranges as pays.

    Args:
        wanted: Partition keys to be processed. Keys not in `known` are assumed to be added to the
            set in sorted order.
        known: The partition set in order of insertion.
        blocked: Keys that no range may cover.
        most: Maximum number of wanted keys in a range.
        seconds: Expected seconds for each wanted key.
        most_seconds: Maximum expected seconds of a range, unless a single key takes more.
        most_between: Maximum number of other keys between two wanted ones in a range.

    Returns:
        Ranges that cover every wanted key once, in order.
    """
    order = [*known, *new_keys(wanted, known)]
    relevant = {*wanted, *blocked}  # a few of perhaps 100,000
    position = {key: index for index, key in enumerate(order) if key in relevant}
    barriers = sorted(position[key] for key in set(blocked) - set(wanted) if key in position)
    places = sorted(position[key] for key in set(wanted))
    groups: list[list[int]] = []
    spent = 0.0
    next_barrier = 0
    for place in places:
        while next_barrier < len(barriers) and barriers[next_barrier] < (
            groups[-1][-1] if groups else place
        ):
            next_barrier += 1
        is_cut = next_barrier < len(barriers) and barriers[next_barrier] < place
        expected = seconds[order[place]] if seconds else 0.0
        if (
            not groups
            or is_cut
            or len(groups[-1]) == most
            or spent + expected > most_seconds
            or place - groups[-1][-1] - 1 > most_between
        ):
            groups.append([place])
            spent = expected
        else:
            groups[-1].append(place)
            spent += expected
    return [
        Range(order[group[0]], order[group[-1]], tuple(order[place] for place in group))
        for group in groups
    ]


def new_keys(wanted: Collection[str], known: Collection[str]) -> list[str]:
    """The wanted keys that are not known, in the order in which they are added to the set."""
    return sorted(set(wanted).difference(known))
