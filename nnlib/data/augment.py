"""Random changes of training images that keep their class."""

from dataclasses import dataclass

import numpy as np

from nnlib.functional.checks import Array


@dataclass(frozen=True)
class Augment:
    """Mirror every second image left to right, and shift each by up to ``crop`` pixels in both directions.

    Called with images (N, H, W, C) and a generator it returns new ones of the same shape and dtype. A shift crops the
    image out of one whose edge pixels were repeated ``crop`` times. Source: He et al. 2015 (Deep residual learning),
    section 4.2, who pad with zeros.
    """

    flip: bool = True
    crop: int = 4

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ValueError(f"Augment: crop is a number of pixels, at least 0, got {self.crop}")

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        if images.ndim != 4:
            raise ValueError(f"Augment: images have shape {images.shape}, expected (N, H, W, C)")
        samples, height, width, _ = images.shape
        columns = np.tile(np.arange(width), (samples, 1))
        rows = np.tile(np.arange(height), (samples, 1))
        if self.crop:
            shifts = rng.integers(-self.crop, self.crop + 1, size=(2, samples, 1))
            rows, columns = rows + shifts[0], columns + shifts[1]
        if self.flip:
            mirrored = rng.random(samples) < 0.5
            columns[mirrored] = columns[mirrored, ::-1]
        # Looking up clipped coordinates repeats the edge pixels without padding the images.
        rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
        return images[np.arange(samples)[:, None, None], rows[:, :, None], columns[:, None, :]]
