"""Products of rows with a matrix, in blocks that fit the caches: what linear layers and convolutions are made of.

The roles are those of Goto and van de Geijn 2008. A *panel*, some columns of the matrix, is copied so that its rows lie
one after the other, stays in the second cache, and meets every tile of rows. The rows are never copied: in an NHWC
image each kernel row's part of a patch, (kernel column, channel), is one run of neighbours in memory, so the patch
that a convolution multiplies is a number of such segments, equally far apart, and only its beginning must be told.
"""

import numpy as np
from numba import prange

from nnlib.kernels import tile
from nnlib.kernels.runtime import inline, kernel
from nnlib.kernels.tile import FEW_ROWS, ROWS, VECTOR_BYTES, VECTORS

DEPTH = 2048  # rows of the panels that are copied together: 256 KiB, which the second cache holds
GROUP = 8  # panels that are copied together, a kibibyte from each row of the matrix
BLOCK = 4 * ROWS  # rows of the result that are finished together, while the first cache has them
STEPS = 256  # rows of a panel in `transposed_product`, which every tile reads anew: 32 KiB, for the first cache


@inline
def lanes(array):
    """Return how many numbers a vector holds."""
    return VECTOR_BYTES // array.itemsize


@inline
def part(count, unit, thread, threads):
    """Return the begin and end of a thread's share of 0..count, in whole units where that can be."""
    units = -(-count // unit)
    return min(count, units * thread // threads * unit), min(count, units * (thread + 1) // threads * unit)


@inline
def copy_row(source, start, valid, target, target_start, width, lane):
    """Copy ``valid`` neighbours and fill up with zeros to ``width``, a whole number of vectors."""
    if valid == width:
        tile.copy_vectors(source, start, target, target_start, width // lane)
    else:
        for j in range(width):
            target[target_start + j] = source[start + j] if j < valid else 0


@inline
def copy_columns(w, taps, transposed, begin, end, first, last, lane, scratch):
    """Copy rows begin..end of columns first..last of the matrix, panel by panel, into ``scratch``.

    w (T, D, F): the matrix is the slices w[taps[0]], w[taps[1]], ... below each other; with ``transposed`` w is
    (T, F, D) and they are the slices' transposes. Columns that a panel lacks to whole vectors are zeros.
    """
    depth, count, width = w.shape[2] if transposed else w.shape[1], end - begin, VECTORS * lane
    flat, columns = w.reshape(-1), w.shape[2]
    k = begin
    while k < end:
        tap, row = taps[k // depth], k % depth
        strip = min(lane if transposed else 1, depth - row, end - k)
        if not transposed:  # a whole row at a time, as memory likes it
            source = (tap * depth + row) * columns
            for f in range(first, last, width):
                valid = min(width, last - f)
                here = panel_width(last - f, lane)
                copy_row(flat, source + f, valid, scratch, (f - first) * count + (k - begin) * here, here, lane)
        else:
            for f in range(first, last, width):
                here = panel_width(last - f, lane)
                target = (f - first) * count + (k - begin) * here
                for g in range(f, min(f + here, f + width), lane):
                    source = (tap * w.shape[1] + g) * columns + row
                    valid = max(0, min(lane, last - g))
                    if valid == lane and strip == lane:
                        tile.transpose_vectors(flat, source, scratch, target + g - f, columns, here)
                    else:
                        for i in range(strip):
                            for j in range(lane):
                                number = flat[source + j * columns + i] if j < valid else 0
                                scratch[target + i * here + g - f + j] = number
        k += strip


@inline
def panel_width(left, lane):
    """Return how wide the panel is that begins where ``left`` columns are left."""
    return VECTORS * lane if left > lane else lane


@inline
def row_tiles(x, start, places, begin, end, segments, segment_stride, length, panel, wide, y, y_start, y_stride, add):
    """Multiply rows begin..end with a packed panel into y from y_start on, a tile at a time."""
    r = begin
    while r < end:
        here = y_start + (r - begin) * y_stride
        if end - r >= ROWS:
            if wide:
                tile.rows_wide(x, start, places, r, segments, segment_stride, length, panel, y, here, y_stride, add)
            else:
                tile.rows_narrow(x, start, places, r, segments, segment_stride, length, panel, y, here, y_stride, add)
            r += ROWS
        elif end - r >= FEW_ROWS:
            if wide:
                tile.few_rows_wide(x, start, places, r, segments, segment_stride, length, panel, y, here, y_stride, add)
            else:
                tile.few_rows_narrow(
                    x, start, places, r, segments, segment_stride, length, panel, y, here, y_stride, add
                )
            r += FEW_ROWS
        else:
            if wide:
                tile.row_wide(x, start, places, r, segments, segment_stride, length, panel, y, here, y_stride, add)
            else:
                tile.row_narrow(x, start, places, r, segments, segment_stride, length, panel, y, here, y_stride, add)
            r += 1


@inline
def finish(y, begin, end, first, last, scale, shift, residual, rectify):
    """Apply what follows a product: y * scale + shift + residual, then the rectifier; an empty array stands for none.

    scale and shift have a number for each column; residual has the shape of y.
    """
    columns, lane = y.shape[1], lanes(y)
    scales, shifts, adds = scale.size > 0, shift.size > 0, residual.size > 0
    if not (scales or shifts or adds or rectify):
        return
    flat, others = y.reshape(-1), residual.reshape(-1)
    whole = first + (last - first) // lane * lane
    for r in range(begin, end):
        for j in range(first, whole, lane):
            tile.finish_vector(flat, r * columns + j, j, scale, shift, others, scales, shifts, adds, rectify)
        for j in range(whole, last):
            number = y[r, j]
            number = number * scale[j] if scales else number
            number = number + shift[j] if shifts else number
            number = number + residual[r, j] if adds else number
            y[r, j] = y.dtype.type(0) if rectify and number < 0 else number


@kernel
def product(
    x, places, segments, segment_stride, length, w, taps, transposed, y, scale, shift, residual, rectify, threads
):
    """Write into y (M, F) the products of M rows with a matrix (K, F), and what follows (see `finish`).

    x (flat): row m is `segments` runs of `length` numbers, the first at places[m], `segment_stride` apart, K in all.
    The matrix is told by w, taps and ``transposed`` as in `copy_columns`.
    """
    rows, columns = y.shape
    flat = y.reshape(-1)
    lane = lanes(y)
    width = VECTORS * lane
    panels = -(-columns // width)
    by_panels = columns >= rows and panels >= threads
    group = min(GROUP, panels // threads if by_panels else panels)
    # Whole segments at a time, or a part of the only one.
    depth = DEPTH // group
    runs = max(1, depth // length) if segments > 1 else 1
    run = length if segments > 1 else min(depth, length)
    for thread in prange(threads):
        scratch = np.empty(runs * run * group * width, dtype=y.dtype)
        margin = np.empty(BLOCK * width, dtype=y.dtype)
        first_row, last_row, first_column, last_column = 0, rows, 0, columns
        if by_panels:
            first_column, last_column = part(columns, width, thread, threads)
        else:
            first_row, last_row = part(rows, ROWS, thread, threads)
        for f in range(first_column, last_column, group * width):
            last = min(last_column, f + group * width)
            for segment in range(0, segments, runs):
                for step in range(0, length, run):
                    some_segments, some = min(runs, segments - segment), min(run, length - step)
                    begin, count = segment * length + step, some_segments * some
                    copy_columns(w, taps, transposed, begin, begin + count, f, last, lane, scratch)
                    start = segment * segment_stride + step
                    done = begin + count == segments * length
                    for first in range(f, last, width):
                        end = min(last, first + width)
                        here = panel_width(end - first, lane)
                        panel = scratch[(first - f) * count : (first - f) * count + count * here]
                        for r in range(first_row, last_row, BLOCK):
                            stop = min(last_row, r + BLOCK)
                            if end - first == here:
                                row_tiles(
                                    x, start, places, r, stop, some_segments, segment_stride, some, panel, here > lane,
                                    flat, r * columns + first, columns, begin > 0,
                                )  # fmt: skip
                            else:
                                copy_block(y, r, stop, first, end, margin, here, False)
                                row_tiles(
                                    x, start, places, r, stop, some_segments, segment_stride, some, panel, here > lane,
                                    margin, 0, here, begin > 0,
                                )  # fmt: skip
                                copy_block(y, r, stop, first, end, margin, here, True)
                            if done:
                                finish(y, r, stop, first, end, scale, shift, residual, rectify)


@inline
def copy_block(y, begin, stop, first, end, margin, width, back):
    """Copy a block of y into ``margin``, whose rows are whole vectors, or back."""
    for i in range(begin, stop):
        for j in range(first, end):
            if back:
                y[i, j] = margin[(i - begin) * width + j - first]
            else:
                margin[(i - begin) * width + j - first] = y[i, j]


@kernel
def transposed_product(x, places, segments, segment_stride, length, y, out, threads):
    """Write into out (K, F) the sum over m of (row m of x) times (row m of y): rows as in `product`, y (M, F)."""
    steps, columns = y.shape
    if steps == 0:
        out[:] = 0
    flat_y, flat = y.reshape(-1), out.reshape(-1)
    lane = lanes(y)
    width = VECTORS * lane
    panels = -(-columns // width)
    by_panels = panels % threads == 0 or panels >= 4 * threads
    for thread in prange(threads):
        panel = np.empty(STEPS * width, dtype=y.dtype)
        margin = np.empty(ROWS * width, dtype=y.dtype)
        first_column, last_column, first_k, last_k = 0, columns, 0, segments * length
        if by_panels:
            first_column, last_column = part(columns, width, thread, threads)
        else:
            first_k, last_k = part(segments * length, ROWS, thread, threads)
        for first in range(first_column, last_column, width):
            end = min(last_column, first + width)
            here = panel_width(end - first, lane)
            for step in range(0, steps, STEPS):
                some = min(STEPS, steps - step)
                for m in range(some):
                    copy_row(flat_y, (step + m) * columns + first, end - first, panel, m * here, here, lane)
                k = first_k
                while k < last_k:
                    segment, column = k // length, k % length
                    left = min(length - column, last_k - k)
                    count = ROWS if left >= ROWS else FEW_ROWS if left >= FEW_ROWS else 1
                    start = segment * segment_stride + column
                    if end - first == here:
                        column_tile(
                            x, start, places, step, some, panel, here > lane, count,
                            flat, k * columns + first, columns, step > 0,
                        )  # fmt: skip
                    else:
                        copy_block(out, k, k + count, first, end, margin, here, False)
                        column_tile(x, start, places, step, some, panel, here > lane, count, margin, 0, here, step > 0)
                        copy_block(out, k, k + count, first, end, margin, here, True)
                    k += count


@inline
def column_tile(x, start, places, place, length, panel, wide, count, y, y_start, y_stride, add):
    """Add up one tile of `transposed_product`: `count` neighbours in x against a panel."""
    if count == ROWS:
        if wide:
            tile.columns_wide(x, start, places, place, 0, 0, length, panel, y, y_start, y_stride, add)
        else:
            tile.columns_narrow(x, start, places, place, 0, 0, length, panel, y, y_start, y_stride, add)
    elif count == FEW_ROWS:
        if wide:
            tile.few_columns_wide(x, start, places, place, 0, 0, length, panel, y, y_start, y_stride, add)
        else:
            tile.few_columns_narrow(x, start, places, place, 0, 0, length, panel, y, y_start, y_stride, add)
    elif wide:
        tile.column_wide(x, start, places, place, 0, 0, length, panel, y, y_start, y_stride, add)
    else:
        tile.column_narrow(x, start, places, place, 0, 0, length, panel, y, y_start, y_stride, add)
