"""The settings that fix the bytes of a packed set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from mmif.data.collections import LAYOUTS, Record
from mmif.images.labels import UNKNOWN
from mmif.options import Range, Rate, check, spelled


@dataclass(frozen=True, slots=True)
class Settings:
    """What fixes the bytes of the packed photographs, beside the sources."""

    layout: str
    size: Annotated[int, Range(16, 2048)] = 128  # side of the stored squares in pixels
    seg: Literal["given", "kmeans", "none"] | None = None  # None: given where there are label maps, else kmeans
    classes: Annotated[int, Range(2, UNKNOWN)] = (
        12  # labels that k-means makes, or that the label maps of layout folder hold
    )
    canny_sigma: Rate | None = None  # pixels; None: 2 at a side of 256, in proportion

    def resolved(self, records: Iterable[Record]) -> Settings:
        """Fill in the defaults and check the values against the photographs found.

        Raises:
            ValueError: a value out of range, or label maps asked for where there are none.
        """
        check(self, spelled)
        has_labels = any(record.seg for record in records)
        seg = self.seg or ("given" if has_labels else "kmeans")
        sigma = 2 * self.size / 256 if self.canny_sigma is None else self.canny_sigma
        if seg == "given" and not has_labels:
            raise ValueError(f"--seg given needs label maps, found none in layout {self.layout}: use kmeans or none")
        if sigma > self.size:
            raise ValueError(f"--canny-sigma must be at most --size, {self.size}; got {sigma}")
        return Settings(self.layout, self.size, seg, self.classes, sigma)

    @property
    def labels(self) -> list[str]:
        """Names of the labels in the order of their ids."""
        if self.seg == "none":
            return []
        names = LAYOUTS[self.layout].labels if self.seg == "given" else ()
        return list(names) or [f"label {i}" for i in range(self.classes)]

    @property
    def void(self) -> int | None:
        """The id that given label maps use for unknown, beside 255."""
        return LAYOUTS[self.layout].void
