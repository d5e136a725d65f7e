"""What happens to the objects of a soak: uploads, overwrites and deletions, all from one seed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from imgflow_tests.pictures import depth_csv, jpeg, png

Form = Literal["jpeg", "png", "csv", "cut", "text", "empty", "words"]

PHOTOS: tuple[Form, ...] = ("jpeg", "png", "cut", "text", "empty")
PHOTO_SHARES = (80, 14, 3, 2, 1)
DEPTHS: tuple[Form, ...] = ("csv", "words")
DEPTH_SHARES = (94, 6)
DEPTH_SHARE = 0.08

MAKERS: dict[Form, Callable[[int], bytes]] = {
    "jpeg": lambda seed: jpeg(seed=seed),
    "png": lambda seed: png(seed=seed),
    "csv": lambda seed: depth_csv(20, seed=seed),
    "cut": lambda seed: jpeg(256, 256, seed=seed)[:2_000],
    "text": lambda seed: f"note {seed}, not a picture\n".encode(),
    "empty": lambda _seed: b"",
    "words": lambda seed: f"depth,col1\n9000.1,{seed}\n9000.2,words\n".encode(),
}

# Of all objects; what happens to one may happen again, and to one object all of it.
OVERWRITTEN = 0.15
UPLOADED_ALIKE = 0.05
DELETED = 0.08
BACK_AGAIN = 0.4  # of those that are deleted
COPIES = 0.04

# Objects that come all at once, so that runs have hundreds in hand; the others come one by one.
IN_BURSTS = 0.6
BURSTS = 5

# Half of what happens to an object does so while the last of it is still in somebody's hands.
SOON = 0.01  # of the whole time


@dataclass(frozen=True)
class Content:
    """The bytes of an object, by a seed that no other content has."""

    form: Form
    seed: int

    @property
    def is_whole(self) -> bool:
        """Whether an image can be made of it."""
        return self.form in ("jpeg", "png", "csv")

    def body(self) -> bytes:
        """Make the bytes."""
        return MAKERS[self.form](self.seed)


@dataclass(frozen=True)
class Step:
    """An object is uploaded, or deleted where there is no content.

    Attributes:
        key: of the object.
        content: that it gets.
        moment: 0 at the beginning of the soak, 1 at the end.
    """

    key: str
    content: Content | None
    moment: float


def tell(images: int, seed: int) -> list[Step]:
    """All that happens, in order: to so many objects, the same for the same seed."""
    rng = random.Random(seed)
    steps: list[Step] = []
    contents: list[Content] = []  # whole photographs, for copies under another key

    def new_content(is_depth: bool) -> Content:
        forms, shares = (DEPTHS, DEPTH_SHARES) if is_depth else (PHOTOS, PHOTO_SHARES)
        number = seed * 10_000_000 + len(steps)
        return Content(rng.choices(forms, shares)[0], number)

    for number in range(images):
        is_depth = rng.random() < DEPTH_SHARE
        key = f"{number % 23:02}/{number:06}.{'csv' if is_depth else 'jpg'}"
        moment = rng.random()
        if rng.random() < IN_BURSTS:
            moment = int(moment * BURSTS) / BURSTS

        def happens(moment: float, content: Content | None, key: str = key) -> None:
            steps.append(Step(key, content, moment))

        is_copy = not is_depth and contents and rng.random() < COPIES
        content = rng.choice(contents[-500:]) if is_copy else new_content(is_depth)
        happens(moment, content)
        if content.form in ("jpeg", "png"):
            contents.append(content)
        while (dice := rng.random()) < OVERWRITTEN + UPLOADED_ALIKE + DELETED:
            soon = min(1.0, moment + rng.random() * SOON)
            moment = soon if rng.random() < 0.5 else rng.uniform(moment, 1.0)
            if dice < UPLOADED_ALIKE:
                happens(moment, content)
            elif dice < UPLOADED_ALIKE + OVERWRITTEN:
                content = new_content(is_depth)
                happens(moment, content)
            else:
                happens(moment, None)
                if rng.random() >= BACK_AGAIN:
                    break
                moment = rng.uniform(moment, 1.0)
                content = new_content(is_depth)
                happens(moment, content)
    return sorted(steps, key=lambda step: step.moment)


def ends(steps: Iterable[Step]) -> dict[str, Content]:
    """What every object that is there in the end holds."""
    last = {step.key: step.content for step in steps}
    return {key: content for key, content in last.items() if content is not None}


def contents_of(steps: Iterable[Step]) -> dict[str, list[Content]]:
    """All contents that each object has ever had."""
    found: dict[str, list[Content]] = defaultdict(list)
    for step in steps:
        if step.content is not None and step.content not in found[step.key]:
            found[step.key].append(step.content)
    return dict(found)
