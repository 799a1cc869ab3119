"""Convolution with kernels of 3 x 3 pixels and stride 1, in fewer multiplications: 4 instead of 9 for an output.

Two neighbouring outputs of a kernel (g0, g1, g2) over d0, d1, d2, d3 need six products, or these four:

    (d0 - d2) g0    (d1 + d2) (g0 + g1 + g2) / 2    (d2 - d1) (g0 - g1 + g2) / 2    (d1 - d3) g2

The first output is the sum of the first three, the second the second less the third and the fourth. Along rows and
columns that makes 16 products for a square of 2 x 2 outputs, which has 4 x 4 inputs, where the definition has 36. The
sums of inputs serve all filters, those of kernels all images, and over the channels the 16 products are 16 matrices,
for each of which `product` has the tiles. Source: Lavin and Gray 2016, arXiv:1509.09308, section 4.1.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from nnlib.functional.checks import Array
from nnlib.kernels import tile
from nnlib.kernels.arrays import no_matrix, no_vector, packed, rows
from nnlib.kernels.product import column_tile, lanes, panel_width, part, row_tiles
from nnlib.kernels.runtime import inline, kernel, threads
from nnlib.kernels.tile import FEW_ROWS, ROWS, VECTOR_BYTES, VECTORS

PRODUCTS = 16  # for each square of 2 x 2 outputs
SAVED = 1000  # products with each weight that are worth the sums
BYTES = 1 << 19  # of the sums of squares that are worked on together, which the second cache holds
SQUARES = 48  # at least so many together: all weights' sums are read for each lot,
SLOPE_SQUARES = 128  # and for the weights' gradient written too

Matrix = tuple[tuple[float, ...], ...]
INPUTS: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
KERNELS: Matrix = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
OUTPUTS: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))
# The gradient of three weights: two of dL/dy over four inputs, whose sums are those of above.
SLOPES: Matrix = ((1, 0), (0.5, 0.5), (0.5, -0.5), (0, 1))
GRADIENTS: Matrix = ((1, 1, 1, 0), (0, 1, -1, 0), (0, 1, 1, -1))
# The kernel turned by 180 degrees changes places with what it was in the first and last sum.
TURNED = tuple(4 * a + b for a in (3, 1, 2, 0) for b in (3, 1, 2, 0))


def both_ways(matrix: Matrix) -> Any:
    """Return the function that multiplies square blocks of vectors by a small matrix from the left and the right.

    Vector (a, b) of the block lies at start + a * line + b * pixel in the source (flat), that of the result at
    to + a * to_line + b * to_pixel in the target; so do ``count`` neighbours of each. Bit a * size + b of ``read`` and
    ``written`` tells which are there: others are read as zeros, and not written.
    """
    size, result = len(matrix[0]), len(matrix)

    @intrinsic
    def transform(typing, source, start, line, pixel, read, target, to, to_line, to_pixel, written, count):
        integer = types.intp
        return types.void(source, *[integer] * 4, target, *[integer] * 5), emit

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, line, pixel, read = arguments[1:5]
        to, to_line, to_pixel, written = arguments[6:10]
        block = tile.Block(builder, tile.data_of(context, builder, signature, arguments, (0, 5)))
        integer = ir.IntType(64)

        def place(begin: Any, line: Any, pixel: Any, a: int, b: int) -> Any:
            offset = builder.add(builder.mul(line, integer(a)), builder.mul(pixel, integer(b)))
            return builder.add(begin, offset)

        def there(bits: Any, i: int) -> Any:
            return cgutils.is_not_null(builder, builder.and_(bits, integer(1 << i)))

        def transform_all(masked: bool) -> None:
            froms = [place(start, line, pixel, i // size, i % size) for i in range(size * size)]
            tos = [place(to, to_line, to_pixel, i // result, i % result) for i in range(result * result)]
            if masked:
                froms = [builder.select(there(read, i), at, integer(0)) for i, at in enumerate(froms)]
            zeros = ir.Constant(block.vector, [0.0] * block.lanes)
            with cgutils.for_range(builder, arguments[10]) as loop:
                shift = builder.mul(loop.index, integer(block.lanes))
                vectors = [block.load(0, builder.add(at, shift)) for at in froms]
                if masked:
                    vectors = [builder.select(there(read, i), v, zeros) for i, v in enumerate(vectors)]
                columns = [_combine(builder, matrix, vectors[b::size]) for b in range(size)]
                rows = [_combine(builder, matrix, [column[i] for column in columns]) for i in range(result)]
                for i, value in enumerate(value for row in rows for value in row):
                    if masked:
                        with builder.if_then(there(written, i)):
                            block.store(1, value, builder.add(tos[i], shift))
                    else:
                        block.store(1, value, builder.add(tos[i], shift))

        everything = builder.and_(
            builder.icmp_signed("==", read, integer(every(size))),
            builder.icmp_signed("==", written, integer(every(result))),
        )
        with builder.if_else(everything) as (whole, some):
            with whole:
                transform_all(False)
            with some:
                transform_all(True)
        return context.get_dummy_value()

    return transform


def every(size: int) -> int:
    """Return the bits of a square block that is wholly there."""
    return (1 << size * size) - 1


def _combine(builder: Any, matrix: Matrix, vectors: list[Any]) -> list[Any]:
    """Return the matrix times a column of vectors."""
    results = []
    for row in matrix:
        total = None
        for factor, vector in zip(row, vectors, strict=True):
            if factor:
                size = abs(factor)
                factors = ir.Constant(vector.type, [size] * vector.type.count)
                term = vector if size == 1 else builder.fmul(vector, factors)
                if total is None:
                    total = term if factor > 0 else builder.fneg(term)
                else:
                    total = builder.fadd(total, term) if factor > 0 else builder.fsub(total, term)
        results.append(total)
    return results


sum_inputs, sum_kernels, sum_outputs = both_ways(INPUTS), both_ways(KERNELS), both_ways(OUTPUTS)
sum_slopes, sum_gradients = both_ways(SLOPES), both_ways(GRADIENTS)
ALL_4, ALL_3 = every(4), every(3)


@kernel
def transform_kernels(w, turned, panels, threads):
    """Write the sums of kernels w (3, 3, C, F) into panels (16, C * F), or of those turned into (16, F * C).

    Each of the 16 matrices is cut into panels, as `row_tiles` wants them.
    """
    channels, filters, lane = w.shape[2], w.shape[3], lanes(w)
    flat, target = w.reshape(-1), panels.reshape(-1)
    size, step, width = channels * filters, panels.shape[1], VECTORS * lane
    for thread in prange(threads):
        first, last = part(channels, lane, thread, threads)
        block = np.empty(PRODUCTS * lane * lane, dtype=w.dtype)
        if not turned:
            for c in range(first, last):
                for f in range(0, filters, width):
                    here = panel_width(filters - f, lane)
                    sum_kernels(
                        flat, c * filters + f, 3 * size, size, ALL_3,
                        target, f * channels + c * here, 4 * step, step, ALL_4, here // lane,
                    )  # fmt: skip
        else:
            for c in range(first, last, lane):
                begin = c // width * width
                here = panel_width(channels - begin, lane)
                for f in range(0, filters, lane):
                    for j in range(lane):
                        sum_kernels(
                            flat, (c + j) * filters + f, 3 * size, size, ALL_3,
                            block, j * lane, 4 * lane * lane, lane * lane, ALL_4, 1,
                        )  # fmt: skip
                    for i in range(PRODUCTS):
                        to = TURNED[i] * step + begin * filters + f * here + c - begin
                        tile.transpose_vectors(block, i * lane * lane, target, to, lane, here)


@kernel
def convolve_squares(x, top, left, panels, y, scale, shift, residual, rectify, threads):
    """Write into y (N, H', W', F) the convolution of x (N, H, W, C), and what follows it (see `product.finish`).

    The first output's patch begins at row -top and column -left of x; outside of x there are zeros.
    """
    n, squares_down, squares_across = len(y), (y.shape[1] + 1) // 2, (y.shape[2] + 1) // 2
    count = n * squares_down * squares_across
    for thread in prange(threads):
        begin, end = part(count, 1, thread, threads)
        convolve_some(x, top, left, panels, y, begin, end, (scale, shift, residual, rectify))


@inline
def convolve_some(x, top, left, panels, y, begin, end, following):
    """Do `convolve_squares` for squares begin..end."""
    channels, filters, lane = x.shape[3], y.shape[3], lanes(x)
    group = max(SQUARES, BYTES // (PRODUCTS * (channels + filters) * x.itemsize) // ROWS * ROWS)
    group = max(1, min(group, end - begin))
    # A vector more than the squares need, so that the 16 places that are written together share no line of the cache.
    step, out_step = group * channels + lane, group * filters + lane
    inputs, outputs = np.empty(PRODUCTS * step, dtype=x.dtype), np.empty(PRODUCTS * out_step, dtype=x.dtype)
    starts = np.arange(group) * channels
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    line, out_line = x.shape[2] * channels, y.shape[2] * filters
    for first in range(begin, end, group):
        some = min(group, end - first)
        for s in range(some):
            start, read = place_square(first + s, y, x, top, left, 4)
            sum_inputs(
                flat_x, start, line, channels, read, inputs, s * channels, 4 * step, step, ALL_4, channels // lane
            )
        for i in range(PRODUCTS):
            multiply_panels(
                inputs[i * step : (i + 1) * step], starts, some, panels[i], channels,
                outputs[i * out_step : (i + 1) * out_step], filters,
            )  # fmt: skip
        for s in range(some):
            to, written = place_square(first + s, y, y, 0, 0, 2)
            sum_outputs(
                outputs, s * filters, 4 * out_step, out_step, ALL_4,
                flat_y, to, out_line, filters, written, filters // lane,
            )  # fmt: skip
            finish_square(flat_y, to, out_line, filters, written, following)


@inline
def place_square(square, y, images, top, left, size):
    """Return where a square of y begins in flat images (N, H, W, C), and the bits of its pixels, ``size`` a side."""
    across = (y.shape[2] + 1) // 2
    down = (y.shape[1] + 1) // 2
    line = square // across
    image, row, column = line // down, 2 * (line % down) - top, 2 * (square % across) - left
    height, width, channels = images.shape[1:]
    start = ((image * height + row) * width + column) * channels
    if 0 <= row <= height - size and 0 <= column <= width - size:
        return start, (1 << size * size) - 1
    bits = 0
    for a in range(size):
        for b in range(size):
            if 0 <= row + a < height and 0 <= column + b < width:
                bits |= 1 << (a * size + b)
    return start, bits


@inline
def multiply_panels(x, starts, count, panels, depth, y, columns):
    """Write into y the products of the first ``count`` rows of x with a matrix that is cut into panels."""
    lane = lanes(x)
    for f in range(0, columns, VECTORS * lane):
        here = panel_width(columns - f, lane)
        panel = panels[f * depth : (f + here) * depth]
        row_tiles(x, 0, starts, 0, count, 1, 0, depth, panel, here > lane, y, f, columns, False)


@inline
def finish_square(y, start, line, channels, written, following):
    """Apply what follows a convolution to the pixels of a square of y that are there."""
    scale, shift, residual, rectify = following
    scales, shifts, adds = scale.size > 0, shift.size > 0, residual.size > 0
    if scales or shifts or adds or rectify:
        others = residual.reshape(-1)
        for i in range(4):
            if written >> i & 1:
                place = start + i // 2 * line + i % 2 * channels
                for j in range(0, channels, lanes(y)):
                    tile.finish_vector(y, place + j, j, scale, shift, others, scales, shifts, adds, rectify)


@kernel
def gradient_sums(x, top, left, dy, parts, threads):
    """Write into parts (threads, 16, C, F) each thread's sums over squares of dy, and add them up in the first."""
    count = len(dy) * ((dy.shape[1] + 1) // 2) * ((dy.shape[2] + 1) // 2)
    for thread in prange(threads):
        begin, end = part(count, 1, thread, threads)
        add_gradients(x, top, left, dy, parts[thread], begin, end)
    flat = parts.reshape(threads, -1)
    for thread in prange(threads):
        begin, end = part(flat.shape[1], 1, thread, threads)
        for other in range(1, threads):
            for i in range(begin, end):
                flat[0, i] += flat[other, i]


@inline
def add_gradients(x, top, left, dy, sums, begin, end):
    """Do the part of squares begin..end of `gradient_sums`."""
    channels, filters, lane = x.shape[3], dy.shape[3], lanes(x)
    group = max(SLOPE_SQUARES, BYTES // (PRODUCTS * (channels + filters) * x.itemsize))
    group = max(1, min(group, end - begin))
    step, slope_step = group * channels + lane, group * filters + lane
    inputs, slopes = np.empty(PRODUCTS * step, dtype=x.dtype), np.empty(PRODUCTS * slope_step, dtype=x.dtype)
    starts = np.arange(group) * channels
    flat_x, flat_dy, width = x.reshape(-1), dy.reshape(-1), VECTORS * lane
    if begin == end:
        sums[:] = 0
    for first in range(begin, end, group):
        some = min(group, end - first)
        for s in range(some):
            start, read = place_square(first + s, dy, x, top, left, 4)
            sum_inputs(
                flat_x, start, x.shape[2] * channels, channels, read,
                inputs, s * channels, 4 * step, step, ALL_4, channels // lane,
            )  # fmt: skip
            start, read = place_square(first + s, dy, dy, 0, 0, 2)
            for f in range(0, filters, width):
                here = panel_width(filters - f, lane)
                sum_slopes(
                    flat_dy, start + f, dy.shape[2] * filters, filters, read,
                    slopes, f * group + s * here, 4 * slope_step, slope_step, ALL_4, here // lane,
                )  # fmt: skip
        for i in range(PRODUCTS):
            flat = sums[i].reshape(-1)
            for f in range(0, filters, width):
                here = panel_width(filters - f, lane)
                panel = slopes[i * slope_step + f * group : i * slope_step + f * group + some * here]
                k = 0
                while k < channels:
                    rows = ROWS if channels - k >= ROWS else FEW_ROWS if channels - k >= FEW_ROWS else 1
                    column_tile(
                        inputs, i * step + k, starts, 0, some, panel, here > lane, rows,
                        flat, k * filters + f, filters, first > begin,
                    )  # fmt: skip
                    k += rows


@kernel
def gradients_of_kernels(sums, dw, threads):
    """Write dw (3, 3, C, F), given the sums (16, C, F) of `gradient_sums`."""
    channels, filters = dw.shape[2:]
    size = channels * filters
    for thread in prange(threads):
        first, last = part(channels, 1, thread, threads)
        for c in range(first, last):
            sum_gradients(
                sums.reshape(-1), c * filters, 4 * size, size, ALL_4,
                dw.reshape(-1), c * filters, 3 * size, size, ALL_3, filters // lanes(dw),
            )  # fmt: skip


def suits(shape: tuple[int, ...], y: Array, sums: int = 1) -> bool:
    """Return whether kernels of this shape (KH, KW, C, F) are convolved here, with stride 1, to outputs like y.

    Channels must fill vectors, and the products that are saved be worth so many times the ``sums`` for each weight.
    """
    lane = VECTOR_BYTES // y.itemsize
    squares = ((y.shape[1] + 1) // 2) * ((y.shape[2] + 1) // 2)
    saved = len(y) * (9 * y.shape[1] * y.shape[2] - PRODUCTS * squares)
    return shape[:2] == (3, 3) and shape[2] % lane == shape[3] % lane == 0 and saved > sums * SAVED


def convolve(
    x: Array,
    w: Array,
    top: int,
    left: int,
    y: Array,
    *,
    turned: bool = False,
    scale: Array | None = None,
    shift: Array | None = None,
    residual: Array | None = None,
    rectify: bool = False,
) -> None:
    """Write into y the convolution of x with w (3, 3, C, F), and what follows it (see `product.finish`).

    The first output's patch begins at row -top and column -left of x. With ``turned`` w is (3, 3, F, C), and turned by
    180 degrees.
    """
    panels = np.empty((PRODUCTS, w.shape[2] * w.shape[3] + VECTOR_BYTES // w.itemsize), dtype=w.dtype)
    transform_kernels(packed(w), turned, panels, threads())
    convolve_squares(
        packed(x), top, left, panels, y,
        no_vector(y.dtype) if scale is None else packed(scale),
        no_vector(y.dtype) if shift is None else packed(shift),
        no_matrix(y.dtype) if residual is None else rows(residual),
        rectify, threads(),
    )  # fmt: skip


def weight_gradient(dy: Array, x: Array, padding: int) -> Array:
    """Return dw (3, 3, C, F): the sum over all pixels of (patch of x) times (dy at that pixel)."""
    channels, filters = x.shape[3], dy.shape[3]
    parts = np.empty((threads(), PRODUCTS, channels, filters), dtype=x.dtype)
    gradient_sums(packed(x), padding, padding, packed(dy), parts, threads())
    dw = np.empty((3, 3, channels, filters), dtype=x.dtype)
    gradients_of_kernels(parts[0], dw, threads())
    return dw
