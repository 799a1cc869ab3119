"""Products of rows with a matrix, in blocks that fit the caches: what linear layers and convolutions are made of.

The roles are those of Goto and van de Geijn 2008. A *panel*, some columns of the matrix, is copied so that its rows lie
one after the other, stays in the first cache, and meets every tile of a *block* of rows, which the second cache keeps
for the next panel. The rows need no copy: in an NHWC image each kernel row's part of a patch, (kernel column, channel),
is one run of neighbours in memory, so the patch that a convolution multiplies is a number of such segments, equally far
apart, and only its beginning must be told. Only a weight gradient, which reads across the rows, gathers a block of
them first where they lie far apart.
"""

import numpy as np
from numba import prange

from nnlib.functional.checks import Array
from nnlib.kernels import tile
from nnlib.kernels.runtime import inline, kernel
from nnlib.kernels.tile import FEW_ROWS, ROWS, STRIP, TALLEST, VECTOR_BYTES, VECTORS
from nnlib.memory import empty

DEPTH = 4096 // VECTORS  # rows of the panels that are copied together: 256 KiB, which the second cache holds
GROUP = 8  # panels that are copied together: neighbours, up to two kibibytes from each row of the matrix
BLOCK = 2**16  # numbers of a block that several panels meet: another 256 KiB
SHORT = 4 * ROWS  # rows of the result that are finished, or written a piece of each, while the first cache has them
FETCHED = 4  # rows of a matrix between the one that is copied and the one that is fetched
STEPS = 256  # rows of a panel in `transposed_product`, which every tile reads anew: up to 64 KiB
FAR = 512  # numbers between rows of which STEPS lie on more pages than a processor knows at once
APART = 1024  # numbers between what two threads write over and over: a page at least, where fetching ahead ends


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
def copy_rows(source, start, stride, rows, count, panels, first, depth):
    """Copy rows of ``count`` neighbours, a stride apart, into panels ``depth`` high, from their row ``first`` on.

    The last panel is filled up with zeros to whole vectors.
    """
    lane, ahead = lanes(source), FETCHED * stride
    width = VECTORS * lane
    whole = count // width * width
    left = count - whole
    here = panel_width(left, lane)
    if whole:
        for r in range(rows):
            target = (first + r) * width
            tile.copy_wide(source, start + r * stride, panels, target, whole // width, width * depth, ahead)
    if left >= lane:
        for r in range(rows):
            target = whole * depth + (first + r) * here
            tile.copy_narrow(source, start + r * stride + whole, panels, target, left // lane, lane, ahead)
    if left % lane:
        for r in range(rows):
            begin, target = start + r * stride + whole, whole * depth + (first + r) * here
            for j in range(left // lane * lane, here):
                panels[target + j] = source[begin + j] if j < left else 0


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
        if not transposed:  # whole rows, as memory likes it
            strip = min(depth - row, end - k)
            source = (tap * depth + row) * columns + first
            copy_rows(flat, source, columns, strip, last - first, scratch, k - begin, count)
        else:
            strip = min(lane, depth - row, end - k)
            for f in range(first, last, width):
                here = panel_width(last - f, lane)
                target = (f - first) * count + (k - begin) * here
                for g in range(f, f + here, lane):
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
    return min(VECTORS, -(-left // lane)) * lane


@inline
def tile_rows(left, vectors):
    """Return how many rows the tile of so many vectors has that begins where ``left`` rows are left."""
    return TALLEST[vectors] if left >= TALLEST[vectors] else FEW_ROWS if left >= FEW_ROWS else 1


@inline
def row_tiles(x, start, places, begin, end, segments, segment_stride, length, panel, width, y, y_start, y_stride, add):
    """Multiply rows begin..end with a packed panel into y from y_start on, a tile at a time."""
    r, vectors = begin, width // lanes(y)
    while r < end:
        here, count = y_start + (r - begin) * y_stride, tile_rows(end - r, vectors)
        tile.rows(
            x, start, places, r, segments, segment_stride, length, panel, y, here, y_stride, add,
            count, vectors,
        )  # fmt: skip
        r += count


@inline
def finish(y, begin, end, first, last, following):
    """Apply what follows a product: y * scale + shift + residual, then the rectifier; an empty array stands for none.

    scale and shift have a number for each column; residual has the shape of y.
    """
    scale, shift, residual, rectify = following
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
    few = rows <= ROWS and not transposed
    by_columns = few or (columns >= rows and columns >= threads * 2 * lanes(y))
    following = scale, shift, residual, rectify
    for thread in prange(threads):
        if by_columns:
            first, last = part(columns, lanes(y), thread, threads)
            rows_here = 0, rows
        else:
            first, last = 0, columns
            rows_here = part(rows, ROWS, thread, threads)
        if few:
            stream(x, places, segments, segment_stride, length, w, taps, y, first, last)
            finish(y, 0, rows, first, last, following)
        else:
            multiply(
                x, places, segments, segment_stride, length, w, taps, transposed, y, rows_here, first, last, following
            )


@inline
def multiply(
    x, places, segments, segment_stride, length, w, taps, transposed, y, rows, first_column, last_column, following
):
    """Do `product` for some rows (begin, end) and columns of y: the part of one thread."""
    lane = lanes(y)
    width = VECTORS * lane
    group = max(1, min(GROUP, -(-(last_column - first_column) // width)))
    # Whole segments at a time, or a part of the only one.
    depth = DEPTH // group
    runs = max(1, depth // length) if segments > 1 else 1
    run = length if segments > 1 else min(depth, length)
    height = max(1, BLOCK // (runs * run) // ROWS) * ROWS if group > 1 else SHORT
    panels = np.empty(runs * run * group * width, dtype=y.dtype)
    margin = np.empty(height * width, dtype=y.dtype)
    for first in range(first_column, last_column, group * width):
        last = min(last_column, first + group * width)
        for segment in range(0, segments, runs):
            for step in range(0, length, run):
                some_segments, some = min(runs, segments - segment), min(run, length - step)
                begin, count = segment * length + step, some_segments * some
                copy_columns(w, taps, transposed, begin, begin + count, first, last, lane, panels)
                start, add = segment * segment_stride + step, begin > 0
                for r in range(rows[0], rows[1], height):
                    stop = min(rows[1], r + height)
                    multiply_block(
                        x, start, places, r, stop, some_segments, segment_stride, some, panels,
                        y, first, last, margin, add,
                    )  # fmt: skip
                    if begin + count == segments * length:
                        finish(y, r, stop, first, last, following)


@inline
def multiply_block(
    x, start, places, begin, end, segments, segment_stride, length, panels, y, first, last, margin, add
):
    """Multiply rows begin..end with panels into columns first..last of y, through ``margin`` where it is narrower."""
    columns, lane, flat, depth = y.shape[1], lanes(y), y.reshape(-1), segments * length
    for f in range(first, last, VECTORS * lane):
        stop, width = min(last, f + VECTORS * lane), panel_width(last - f, lane)
        panel = panels[(f - first) * depth : (f - first + width) * depth]
        if stop - f == width:
            row_tiles(
                x, start, places, begin, end, segments, segment_stride, length, panel, width,
                flat, begin * columns + f, columns, add,
            )  # fmt: skip
        else:
            copy_block(y, begin, end, f, stop, margin, width, False)
            row_tiles(
                x, start, places, begin, end, segments, segment_stride, length, panel, width,
                margin, 0, width, add,
            )  # fmt: skip
            copy_block(y, begin, end, f, stop, margin, width, True)


@inline
def stream(x, places, segments, segment_stride, length, w, taps, y, first, last):
    """Write columns first..last of a product with a few rows: each row of the matrix is read once, and not copied.

    Vectors are added up in a place of their own, a page apart from that of the next thread: a processor that fetches
    ahead would take from other threads the lines behind, which they write at the same time, over and over.
    """
    depth, columns, lane = w.shape[1], w.shape[2], lanes(y)
    weights = w.reshape(-1)
    whole = (last - first) // lane * lane
    stride = whole + lane
    sums = np.zeros(len(y) * stride + APART, dtype=y.dtype)
    y[:, first:last] = 0  # for what is added one number at a time
    for t in range(len(taps)):
        step = t * depth
        start = step // length * segment_stride + step % length
        strips = depth // STRIP * STRIP
        for d in range(0, strips, STRIP):
            row = (taps[t] * depth + d) * columns + first
            # The vector with the last columns may reach into the next row, where that is inside the matrix.
            inside = row + (STRIP - 1) * columns + stride <= weights.size
            vectors = whole // lane + (inside and first + whole < last)
            for m in range(len(y)):
                here, ahead = places[m] + start + d, STRIP * columns if m == 0 else 0
                tile.add_multiples(x, here, weights, row, columns, sums, m * stride, vectors, ahead)
                if not inside:
                    for i in range(STRIP):
                        add_multiple(weights, row + i * columns, x[here + i], y, m, first, whole, last - first)
        for d in range(strips, depth):
            row = (taps[t] * depth + d) * columns + first
            for m in range(len(y)):
                add_multiple(weights, row, x[places[m] + start + d], y, m, first, 0, last - first)
    for m in range(len(y)):
        for j in range(last - first):
            y[m, first + j] += sums[m * stride + j]


@inline
def add_multiple(weights, row, number, y, m, first, begin, end):
    """Add ``number`` times numbers begin..end of the matrix's row to row m of y, from column ``first`` on."""
    for j in range(begin, end):
        y[m, first + j] += number * weights[row + j]


@inline
def copy_block(y, begin, stop, first, end, margin, width, back):
    """Copy a block of y into ``margin``, whose rows are whole vectors, or back."""
    for i in range(begin, stop):
        for j in range(first, end):
            if back:
                y[i, j] = margin[(i - begin) * width + j - first]
            else:
                margin[(i - begin) * width + j - first] = y[i, j]


def transposed_product(
    x: Array, places: Array, segments: int, segment_stride: int, length: int, y: Array, out: Array, threads: int
) -> None:
    """Write into out (K, F) the sum over m of (row m of x) times (row m of y): rows as in `product`, y (M, F).

    Threads share out the columns of the result; where that would make each read long operands for a small result, the
    terms of the sum instead, and their parts are added up in the order of the threads.
    """
    by_terms = threads > 1 and threads * out.size < y.size
    parts = empty((threads, *out.shape), out.dtype) if by_terms else out[None]
    outer_products(x, places, segments, segment_stride, length, y, parts, threads)
    if by_terms:
        parts.sum(axis=0, out=out)


@kernel
def outer_products(x, places, segments, segment_stride, length, y, parts, threads):
    """Write the sum of `transposed_product` into parts (1, K, F), or each thread's terms into one of many parts."""
    steps, columns = y.shape
    for thread in prange(threads):
        if len(parts) > 1:
            begin, end = part(steps, STEPS, thread, threads)
            add_outer_products(x, places, segments, segment_stride, length, y, begin, end, parts[thread], 0, columns)
        else:
            begin, end = part(columns, lanes(y), thread, threads)
            add_outer_products(x, places, segments, segment_stride, length, y, 0, steps, parts[0], begin, end)


@inline
def add_outer_products(x, places, segments, segment_stride, length, y, begin, end, out, first_column, last_column):
    """Write into some columns of out the terms begin..end of `transposed_product`'s sum."""
    columns, width = y.shape[1], VECTORS * lanes(y)
    group = max(1, min(GROUP, -(-(last_column - first_column) // width)))
    gathers = group > 1 and end - begin > 1 and places[begin + 1] - places[begin] >= FAR
    panels = np.empty(STEPS * group * width, dtype=y.dtype)
    margin = np.empty(ROWS * width, dtype=y.dtype)
    block = np.empty(SHORT * STEPS if gathers else 0, dtype=y.dtype)
    block_places = np.arange(STEPS) * ROWS
    if begin == end:
        out[:, first_column:last_column] = 0
    for first in range(first_column, last_column, group * width):
        last = min(last_column, first + group * width)
        for step in range(begin, end, STEPS):
            some, add = min(STEPS, end - step), step > begin
            copy_rows(y.reshape(-1), step * columns + first, columns, some, last - first, panels, 0, some)
            for segment in range(segments):
                for column in range(0, length, SHORT):
                    count, start = min(SHORT, length - column), segment * segment_stride + column
                    row = segment * length + column
                    if gathers:
                        gather_columns(x, start, places, step, some, count, block)
                        multiply_columns(
                            block, 0, ROWS * some, block_places, 0, some, count, panels,
                            out, row, first, last, margin, add,
                        )  # fmt: skip
                    else:
                        multiply_columns(
                            x, start, ROWS, places, step, some, count, panels, out, row, first, last, margin, add
                        )


@inline
def gather_columns(x, start, places, place, terms, count, block):
    """Copy ``count`` numbers of some terms (see `multiply_columns`) into ``block``, ROWS of each term at a time."""
    for k in range(0, count, ROWS):
        if count - k >= ROWS:
            tile.gather(x, start + k, places, place, block, k * terms, terms)
        else:
            for m in range(terms):
                for i in range(count - k):
                    block[k * terms + m * ROWS + i] = x[places[place + m] + start + k + i]


@inline
def multiply_columns(
    x, start, stride, places, place, terms, count, panels, out, out_row, first, last, margin, add
):
    """Multiply ``count`` numbers of some terms with panels into columns first..last of out from ``out_row`` on.

    Number k of term m is x[start + k // ROWS * stride + k % ROWS + places[place + m]]. A panel that is wider than what
    is left of out multiplies into ``margin``.
    """
    row, lane, flat = out.shape[1], lanes(out), out.reshape(-1)
    for f in range(first, last, VECTORS * lane):
        stop, width = min(last, f + VECTORS * lane), panel_width(last - f, lane)
        panel = panels[(f - first) * terms : (f - first + width) * terms]
        k = 0
        while k < count:
            some = tile_rows(count - k, width // lane)
            here, there = start + k // ROWS * stride + k % ROWS, out_row + k
            if stop - f == width:
                target = there * row + f
                tile.columns(x, here, places, place, 0, 0, terms, panel, flat, target, row, add, some, width // lane)
            else:
                copy_block(out, there, there + some, f, stop, margin, width, False)
                tile.columns(x, here, places, place, 0, 0, terms, panel, margin, 0, width, add, some, width // lane)
                copy_block(out, there, there + some, f, stop, margin, width, True)
            k += some
