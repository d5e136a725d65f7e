"""From a CSV to the numbers of any interval, against numpy and scikit-image on the whole image."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.transform import resize

from imgflow_tests.api.library import Library
from imgflow_tests.depth.tables import table_text

WIDTH = 150


class Case(NamedTuple):
    """A file and what must come of it, made without the package."""

    depths: NDArray[np.float64]
    text: list[str]
    pixels: NDArray[np.float64]
    order: list[int]

    @classmethod
    def drawn(
        cls, shape: tuple[int, int], tenths: int, arrangement: str, holes: float, seed: int
    ) -> Case:
        rng = np.random.default_rng(seed)
        rows = shape[0]
        numbers = 90_001 + np.cumsum(rng.integers(0 if tenths == 0 else 1, tenths + 2, rows))
        text = [f"{number // 10}.{number % 10}" for number in numbers.tolist()]
        pixels = rng.uniform(-50, 300, shape).round(2)
        pixels[rng.random(pixels.shape) < holes] = np.nan
        pixels[0, 0] = 7
        order = list(range(rows))
        if arrangement == "falling":
            order.reverse()
        elif arrangement == "shuffled":
            rng.shuffle(order)
        return cls(np.array([float(depth) for depth in text]), text, pixels, order)

    @property
    def file(self) -> bytes:
        return table_text(
            [self.text[row] for row in self.order],  # type: ignore[arg-type]
            self.pixels[self.order],
            spell=lambda value: "" if np.isnan(value) else repr(value),  # type: ignore[call-overload]
        )

    def resized(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """All rows by depth, equal ones as they stand in the file, resized at once."""
        by_depth = np.argsort(self.depths[self.order], kind="stable")
        pixels = self.pixels[self.order][by_depth]
        if pixels.shape[1] == WIDTH:
            return np.sort(self.depths), pixels
        shape = (len(pixels), WIDTH)
        present = np.isfinite(pixels).astype(float)
        values, share = (
            resize(part, shape, order=1, anti_aliasing=True, preserve_range=True, clip=False)
            for part in (np.nan_to_num(pixels), present)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sort(self.depths), np.where(share >= 0.5 - 1e-9, values / share, np.nan)


def numbers(client: TestClient, image_id: int, low: float, high: float) -> NDArray[np.float32]:
    bounds = {"depth_min": repr(low), "depth_max": repr(high), "format": "npy"}
    answer = client.get(f"/image/{image_id}", params=bounds)
    if answer.status_code != 200:
        assert answer.json()["code"] in ("no_rows", "depth_outside")
        return np.empty((0, WIDTH), np.float32)
    found: NDArray[np.float32] = np.load(io.BytesIO(answer.content))
    return found


def test_any_interval_of_any_image_is_what_the_whole_image_has_there(own_library: Library) -> None:
    count = 0

    @given(
        st.builds(
            Case.drawn,
            st.tuples(
                st.sampled_from([1, 2, 127, 128, 129, 300, 700]),
                st.sampled_from([1, 3, 100, 150, 200]),
            ),
            st.sampled_from([0, 1, 7]),
            st.sampled_from(["rising", "falling", "shuffled"]),
            st.sampled_from([0, 0.2]),
            st.integers(0, 9),
        ),
        st.lists(st.tuples(st.floats(-0.1, 1.1), st.floats(-0.1, 1.1)), min_size=1, max_size=6),
    )
    @settings(
        max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def check(case: Case, shares: list[tuple[float, float]]) -> None:
        nonlocal count
        count += 1
        image = own_library.add(f"{count}.csv", case.file)
        assert (image.state, image.reason) == ("ready", None)
        depths, pixels = case.resized()
        span = depths[-1] - depths[0]
        intervals = [sorted(depths[0] + span * share for share in pair) for pair in shares]
        # Bounds that are depths of rows must be included.
        intervals.append([depths[len(depths) // 3], depths[2 * len(depths) // 3]])
        for low, high in intervals:
            wanted = pixels[(depths >= low) & (depths <= high)]
            found = numbers(client, image.id, float(low), float(high))
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * 350 * 2)

    with own_library.client() as client:
        check()
