"""Addresses of images in the API and the gallery, as events and asset pages show them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Links:
    """Where people reach the API and the gallery.

    Attributes:
        root: such as `https://images.example.org`, without a slash at its end.
    """

    root: str = "http://127.0.0.1:8000"

    def api(self, image_id: int) -> str:
        """The row of an image as JSON."""
        return f"{self.root}/images/{image_id}"

    def picture(self, image_id: int, output: str) -> str:
        """An output that is a picture."""
        return f"{self.root}/images/{image_id}/{output}"

    def gallery(self, image_id: int) -> str:
        """The page of an image."""
        return f"{self.root}/gallery/{image_id}"

    def gallery_of(self, kind: str) -> str:
        """The newest images of a family."""
        return f"{self.root}/?kind={kind}"

    @property
    def docs(self) -> str:
        """What the API can do."""
        return f"{self.root}/docs"


HERE = Links()
