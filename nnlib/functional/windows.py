"""How windows slide over an image, which convolution and pooling share.

Output pixel a of a row of O sees, at offset i of its window, the input pixel a * stride + i - padding of a row of I.
"""

from collections.abc import Iterator

Index = tuple[slice, slice, slice]  # into (N, H, W, C): all images, some rows, some columns


def offsets(
    size: tuple[int, ...], stride: int, padding: int, image: tuple[int, ...], out: tuple[int, ...]
) -> Iterator[tuple[int, int, Index, Index]]:
    """Yield ``(i, j, pixels, outputs)`` for each offset in a window, row by row.

    size, image, out: heights and widths of the window, the image and the output. ``x[pixels]`` are the input pixels
    that stand at offset (i, j) of the windows of ``y[outputs]``, one for one. Outputs that see the padding there are
    left out, and so is an offset at which all do.
    """
    everything = slice(None)
    rows = [line(i, stride, padding, image[0], out[0]) for i in range(size[0])]
    columns = [line(j, stride, padding, image[1], out[1]) for j in range(size[1])]
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if row and column:
                yield i, j, (everything, row[0], column[0]), (everything, row[1], column[1])


def line(offset: int, stride: int, padding: int, length: int, out: int) -> tuple[slice, slice] | None:
    """Return the input pixels and the outputs along one axis that meet at ``offset``, or None if none do."""
    shift = offset - padding
    first = max(0, -(shift // stride))  # the smallest a with a * stride + shift >= 0
    last = min(out - 1, (length - 1 - shift) // stride)  # the largest with a * stride + shift <= length - 1
    if first > last:
        return None
    return slice(first * stride + shift, last * stride + shift + 1, stride), slice(first, last + 1)
