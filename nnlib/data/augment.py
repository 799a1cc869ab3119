"""Random changes of training images that keep their class."""

from dataclasses import dataclass

import numpy as np

from nnlib.functional.checks import Array

BLOCK = 2**15  # pixel values changed at a time, few enough to stay in the cache from one operation to the next


@dataclass(frozen=True)
class Augment:
    """Change each image at random: mirror and crop it, and where asked turn it, light it and erase a part of it.

    Called with images (N, H, W, C), uint8 or float, and a generator it returns new ones of the same shape and dtype.
    All that is random is drawn first (`draw`), by shape alone, and what is off draws nothing.

    - ``flip``: mirror left to right with probability 1/2.
    - ``crop``: move up to so many whole pixels down or up and right or left (He et al. 2015, Deep residual learning,
      section 4.2).
    - ``rotation``, ``scale``, ``shift``: turn about the centre by up to ``rotation`` degrees either way, magnify by a
      factor in 1 ± ``scale``, move by up to ``shift`` of the height and of the width. Bilinear, and in one pass with
      flip and crop. Without these three no pixel is interpolated.
    - ``contrast``, ``brightness``: a value x becomes b (m + c (x - m)), with c in 1 ± ``contrast``, b in
      1 ± ``brightness`` and m the mean of the image as it came, over pixels and channels. uint8 is rounded and clipped
      to 0..255; floats, whose range is unknown, are not clipped.
    - ``erasing``: the probability to fill a rectangle with b m. Its share of the image's area is uniform in
      ``erasing_area``, its height over its width log-uniform in ``erasing_aspect`` and no further from 1 than fits
      (Zhong et al. 2020, Random erasing, algorithm 1, who draw until it fits).

    Where a change looks beyond the border it finds the nearest edge pixel. Raises ValueError.
    """

    flip: bool = True
    crop: int = 4
    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    erasing: float = 0.0
    erasing_area: tuple[float, float] = (0.02, 0.4)
    erasing_aspect: tuple[float, float] = (0.3, 1 / 0.3)

    def __post_init__(self) -> None:
        if not isinstance(self.crop, int) or self.crop < 0:
            raise ValueError(f"Augment: crop is a whole number of pixels, at least 0, got {self.crop}")
        most = {"rotation": 180, "scale": 0.9, "shift": 1, "brightness": 1, "contrast": 1, "erasing": 1}
        for name, limit in most.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise ValueError(f"Augment: {name} lies in 0 to {limit}, got {value}")
        for name, limit in {"erasing_area": 1, "erasing_aspect": 100}.items():
            value = getattr(self, name)
            if len(value) != 2 or not 0 < value[0] <= value[1] <= limit:
                raise ValueError(f"Augment: {name} is (least, greatest), above 0 and up to {limit}, got {value}")

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        if images.ndim != 4 or 0 in images.shape[1:]:
            raise ValueError(f"Augment: images have shape {images.shape}, expected (N, H, W, C)")
        if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
            raise ValueError(f"Augment: images are {images.dtype}, expected uint8 or floats")
        samples, height, width, channels = images.shape
        changes = self.draw(samples, height, width, rng)
        changed = np.empty(images.shape, images.dtype)
        step = max(1, BLOCK // (height * width * channels))
        for start in range(0, samples, step):
            block = slice(start, start + step)
            changed[block] = changes[block].apply(images[block])
        return changed

    def draw(self, samples: int, height: int, width: int, rng: np.random.Generator) -> "Changes":
        """Return what `__call__` does to ``samples`` images of that size with the generator in this state.

        The numbers are drawn for all images together, one kind after the other, in the order below.
        """
        offsets, mirrored = np.zeros((samples, 2), dtype=np.int64), np.zeros(samples, dtype=bool)
        matrices = light = boxes = None
        if self.crop:
            offsets = rng.integers(-self.crop, self.crop + 1, size=(2, samples)).T
        if self.flip:
            mirrored = rng.random(samples) < 0.5
        if self.rotation or self.scale or self.shift:
            angles = np.deg2rad(_around(0, self.rotation, (samples,), rng))
            factors = _around(1, self.scale, (samples,), rng)
            shifts = _around(0, self.shift, (samples, 2), rng) * (height, width)
            matrices = _matrices(angles, factors, shifts + offsets, mirrored, height, width)
        if self.brightness or self.contrast:
            light = np.stack([_around(1, by, (samples,), rng) for by in (self.brightness, self.contrast)], axis=1)
        if self.erasing:
            boxes = self._boxes(rng.random((5, samples)), height, width)
        return Changes(offsets, mirrored, matrices, light, boxes)

    def _boxes(self, uniform: Array, height: int, width: int) -> Array:
        """Return the rectangles (N, 4) of five numbers in [0, 1) for each image (5, N)."""
        chosen = uniform[0] < self.erasing
        area = np.interp(uniform[1], (0, 1), self.erasing_area) * height * width
        aspect = np.exp(np.interp(uniform[2], (0, 1), np.log(self.erasing_aspect)))
        aspect = aspect.clip(area / width**2, height**2 / area)
        high, wide = (np.rint(np.sqrt(side)) * chosen for side in (area * aspect, area / aspect))
        top, left = np.floor(uniform[3] * (height - high + 1)), np.floor(uniform[4] * (width - wide + 1))
        return np.stack([top, top + high, left, left + wide], axis=1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Changes:
    """What happens to each of N images; None where nothing of the kind does.

    - ``offsets`` (N, 2): where, in whole pixels down and right, the crop starts; ``mirrored`` (N,): True or False.
    - ``matrices`` (N, 2, 3), offsets and mirroring included: the result at (row, column) is looked up in the image at
      matrix @ (row, column, 1).
    - ``light`` (N, 2): the factors of brightness and contrast.
    - ``boxes`` (N, 4): the first row to erase, the first below it to keep, and the same for columns.
    """

    offsets: Array
    mirrored: Array
    matrices: Array | None = None
    light: Array | None = None
    boxes: Array | None = None

    def __getitem__(self, part: slice) -> "Changes":
        optional = (None if array is None else array[part] for array in (self.matrices, self.light, self.boxes))
        return Changes(self.offsets[part], self.mirrored[part], *optional)

    def apply(self, images: Array) -> Array:
        """Return the images (N, H, W, C) changed, as new ones."""
        if self.matrices is None:
            changed = _pick(images, self.offsets, self.mirrored)
        else:
            changed = _interpolate(images, self.matrices)
        if self.light is None and self.boxes is None:
            return _stored(changed, images.dtype)
        means = images.mean(axis=(1, 2, 3), dtype=_working(images.dtype))
        if self.light is not None:
            brightness, contrast = self.light.T.astype(means.dtype)
            changed = changed * _per_image(brightness * contrast) + _per_image(brightness * (1 - contrast) * means)
            means = brightness * means
        changed = _stored(changed, images.dtype)
        if self.boxes is not None:
            _erase(changed, self.boxes, _stored(means, images.dtype))
        return changed


def _around(middle: float, spread: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return numbers uniform in middle ± spread; no spread draws none."""
    return rng.uniform(middle - spread, middle + spread, shape) if spread else np.full(shape, float(middle))


def _working(dtype: np.dtype) -> np.dtype:
    """Return the dtype to compute in: float32, or float64 for images that are."""
    return np.result_type(dtype, np.float32)


def _per_image(values: Array) -> Array:
    return values[:, None, None, None]


def _stored(values: Array, dtype: np.dtype) -> Array:
    """Return values in an image's dtype; for uint8 they are rounded to the nearest and clipped, in place."""
    if values.dtype == dtype:
        return values
    if dtype == np.uint8:
        np.rint(values, out=values)
        np.clip(values, 0, 255, out=values)
    return values.astype(dtype)


def _matrices(angles: Array, factors: Array, shifts: Array, mirrored: Array, height: int, width: int) -> Array:
    """Return (N, 2, 3): mirror, turn by ``angles`` (radians) and divide by ``factors`` about the centre, then shift.

    This leads from the result back to the image, which is magnified where the places looked up lie closer together.
    """
    cosine, sine = np.cos(angles) / factors, np.sin(angles) / factors
    side = np.where(mirrored, -1.0, 1.0)
    linear = np.stack([cosine, -sine * side, sine, cosine * side], axis=1).reshape(-1, 2, 2)
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    return np.concatenate([linear, (centre + shifts - linear @ centre)[:, :, None]], axis=2)


def _pick(images: Array, offsets: Array, mirrored: Array) -> Array:
    """Return each image cropped at its offset, then mirrored: whole pixels, the nearest on the edge if outside."""
    samples, height, width, channels = images.shape
    rows, columns = np.arange(height) + offsets[:, :1], np.arange(width) + offsets[:, 1:]
    columns[mirrored] = columns[mirrored, ::-1]
    rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
    rows += np.arange(samples)[:, None] * height
    return images.reshape(-1, channels).take(rows[:, :, None] * width + columns[:, None, :], axis=0)


def _interpolate(images: Array, matrices: Array) -> Array:
    """Return each image looked up at its matrix's places, bilinearly, as floats of the dtype `_working`."""
    samples, height, width, channels = images.shape
    top, down = _neighbours(matrices[:, 0], (height, width), height)
    left, right = _neighbours(matrices[:, 1], (height, width), width)
    corner = (top * width + left).astype(np.intp)
    corner += np.arange(samples)[:, None, None] * (height * width)
    below, beside = width * (height > 1), int(width > 1)
    looked_up = np.empty(images.shape, _working(images.dtype))
    for channel in range(channels):
        plane = images[..., channel].astype(looked_up.dtype).ravel()
        # The same index into a plane that starts a pixel (a row) later finds the neighbour on the right (below).
        upper = _between(plane.take(corner), plane[beside:].take(corner), right)
        lower = _between(plane[below:].take(corner), plane[below + beside :].take(corner), right)
        looked_up[..., channel] = _between(upper, lower, down)
    return looked_up


def _neighbours(row: Array, size: tuple[int, int], length: int) -> tuple[Array, Array]:
    """Return for a matrix's row (N, 3), along its axis, the pixel before each place and the way from it, 0 to 1."""
    by_row, by_column, start = row.astype(np.float32).T[:, :, None, None]
    places = by_row * np.arange(size[0], dtype=np.float32)[:, None] + (
        by_column * np.arange(size[1], dtype=np.float32) + start
    )
    np.clip(places, 0, length - 1, out=places)
    first = np.minimum(np.floor(places), max(length - 2, 0))
    places -= first
    return first.astype(np.int32), places


def _between(one: Array, other: Array, way: Array) -> Array:
    """Return one + way (other - one), in ``other``'s memory."""
    other -= one
    other *= way
    other += one
    return other


def _erase(images: Array, boxes: Array, values: Array) -> None:
    """Fill each image's box with its value, in place."""
    for image, (top, bottom, left, right), value in zip(images, boxes.tolist(), values, strict=True):
        image[top:bottom, left:right] = value
