"""What is to be run: pure decisions over keys and positions, without Dagster, database or store.

A run costs seconds to launch and an image milliseconds, so images are processed in ranges of
partition keys. A range also covers what lies between: a done image costs about as much as its
bookkeeping, so ranges are merged until that outweighs a further run. An image that must stay out of
a run (rejected, or already in the hands of another run) ends a range.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf

# A further run costs 3 to 8 s, a done image in a range 1.5 ms.
MOST_DONE_BETWEEN = 2_000


@dataclass(frozen=True)
class Range:
    """A range of partition keys, both ends included, in the order of the partition set.

    Attributes:
        start: first partition key.
        end: last partition key.
        wanted: the keys in it that are to be processed.
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
        wanted: partition keys to be processed; those that are not known yet are taken to be added
            to the set in sorted order.
        known: the partition set in its own order, which is that of insertion.
        blocked: keys that no range may cover.
        most: wanted keys in a range.
        seconds: what each wanted key is expected to take.
        most_seconds: of the wanted keys in a range, unless a single one takes more.
        most_between: other keys between two wanted ones of a range.

    Returns:
        Ranges that cover every wanted key once, in order.
    """
    order = [*known, *new_keys(wanted, known)]
    relevant = {*wanted, *blocked}  # few of maybe 100,000
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
    """The wanted keys that the set does not have, in the order in which they are added to it."""
    return sorted(set(wanted).difference(known))
