"""Convolution with kernels of 3 x 3 pixels and stride 1 after Winograd: 25 multiplications where the definition has 81.

Along one axis, three neighbouring outputs of a kernel g over inputs d take nine products by definition, or these five:

    m0 = (2 d0 - d1 - 2 d2 + d3) g0 / 2             m1 = (2 d1 + d2 - d3) (g0 + g1 + g2) / 2
    m2 = (2 d1 - 3 d2 + d3) (g1 - g0 - g2) / 6      m3 = (d3 - d1) (g0 + 2 g1 + 4 g2) / 6
    m4 = (2 d1 - d2 - 2 d3 + d4) g2
    y0 = m0 + m1 + m2 + m3      y1 = m1 - m2 + 2 m3      y2 = m1 + m2 + 4 m3 + m4

In matrices y = A^T [(G g) * (B^T d)], where * goes element by element; they are Toom and Cook's for the points 0, 1,
-1, 2 and infinity. Along rows and columns Y = A^T [(G g G^T) * (B^T d B)] A: a square of 3 x 3 outputs from one of
5 x 5 inputs, "F(3 x 3, 3 x 3)". Four steps: transform the kernels, once for all images; transform the squares of
inputs, once for all filters; at each of the 25 places add up the products over the channels, which is a product of
matrices (squares, C) (C, F), in the tiles of `product`; transform the sums back.

The input's gradient is the same with the kernel turned by 180 degrees. So is the weights' gradient, with squares of
dL/dy for kernels; it adds up over all squares before it transforms back. Rounding errors are two to three times those
of the definition, and an infinite input gives NaN where that gives infinity.
Source: Lavin and Gray 2016, arXiv:1509.09308, sections 4.1 to 4.3.
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
from nnlib.kernels.product import lanes, panel_width, part, row_tiles, tile_rows
from nnlib.kernels.runtime import inline, kernel, threads
from nnlib.kernels.tile import ROWS, VECTOR_BYTES, VECTORS
from nnlib.memory import empty

SIZE, SIDE = 3, 5  # of a square of outputs, and of the inputs that it sees
PLACES = SIDE * SIDE  # in a transformed square
SAVED = 1000  # multiplications for each pair of channel and filter that are worth a transform of all weights
BYTES = 1 << 19  # of the transformed squares that are worked on together, which the second cache holds
SQUARES = 48  # at least so many together: all transformed weights are read for each lot,
SLOPE_SQUARES = 128  # and for the weights' gradient written too

Matrix = tuple[tuple[float, ...], ...]
INPUTS: Matrix = (  # B^T
    (2, -1, -2, 1, 0),
    (0, 2, 1, -1, 0),
    (0, 2, -3, 1, 0),
    (0, -1, 0, 1, 0),
    (0, 2, -1, -2, 1),
)
KERNELS: Matrix = (  # G
    (1 / 2, 0, 0),
    (1 / 2, 1 / 2, 1 / 2),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 6, 1 / 3, 2 / 3),
    (0, 0, 1),
)
OUTPUTS: Matrix = (  # A^T
    (1, 1, 1, 1, 0),
    (0, 1, -1, 2, 0),
    (0, 1, 1, 4, 1),
)


def both_ways(matrix: Matrix) -> Any:
    """Return the function that computes M X M^T for a small matrix M, where X is a square block of vectors.

    Vector (a, b) of X lies at start + a * line + b * pixel in the source (flat), that of the result at
    to + a * to_line + b * to_pixel in the target; so do ``count`` neighbours of each. The bits of ``read`` are for X's
    vectors, row by row: one that is not there is read as zeros. Those of ``written`` are for the result's.
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
        integer = ir.IntType(64)  # a type to make constants of

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
                columns = [_combine(block, matrix, vectors[b::size]) for b in range(size)]
                products = [_combine(block, matrix, [column[i] for column in columns]) for i in range(result)]
                for i, value in enumerate(value for row in products for value in row):
                    if masked:
                        with builder.if_then(there(written, i)):
                            block.store(1, value, builder.add(tos[i], shift))
                    else:
                        block.store(1, value, builder.add(tos[i], shift))

        everything = builder.and_(
            builder.icmp_signed("==", read, integer(every.py_func(size))),
            builder.icmp_signed("==", written, integer(every.py_func(result))),
        )
        with builder.if_else(everything) as (whole, some):
            with whole:
                transform_all(False)
            with some:
                transform_all(True)
        return context.get_dummy_value()

    return transform


@inline
def every(size):
    """Return the bits of a square block that is wholly there."""
    return (1 << size * size) - 1


def _combine(block: tile.Block, matrix: Matrix, vectors: list[Any]) -> list[Any]:
    """Return the matrix times a column of vectors."""
    results = []
    for row in matrix:
        total = None
        for factor, vector in zip(row, vectors, strict=True):
            number = ir.Constant(block.vector.element, factor)
            if factor and total is None:
                total = vector if factor == 1 else block.builder.fmul(vector, block.spread(number))
            elif factor:
                total = block.multiply_add(number, vector, total)
        results.append(total)
    return results


transform_inputs, transform_kernel, restore = both_ways(INPUTS), both_ways(KERNELS), both_ways(OUTPUTS)
ALL_INPUTS, ALL_OUTPUTS = every.py_func(SIDE), every.py_func(SIZE)


@kernel
def transform_kernels(w, turned, panels, threads):
    """Write the transforms of kernels w (3, 3, C, F), or of ``turned`` ones, which go from F to C, into panels.

    panels (25, more than C * F): each place's matrix, cut into panels as `row_tiles` wants them.
    """
    channels, filters, lane = w.shape[2], w.shape[3], lanes(w)
    flat, target = w.reshape(-1), panels.reshape(-1)
    size, step, width = channels * filters, panels.shape[1], VECTORS * lane
    last_pixel = (SIZE * SIZE - 1) * size
    for thread in prange(threads):
        first, last = part(channels, lane, thread, threads)
        if not turned:
            for c in range(first, last):
                for f in range(0, filters, width):
                    here = panel_width(filters - f, lane)
                    transform_kernel(
                        flat, c * filters + f, SIZE * size, size, ALL_OUTPUTS,
                        target, f * channels + c * here, SIDE * step, step, ALL_INPUTS, here // lane,
                    )  # fmt: skip
        else:
            block = np.empty(PLACES * lane * lane, dtype=w.dtype)
            for c in range(first, last, lane):
                begin = c // width * width
                here = panel_width(channels - begin, lane)
                for f in range(0, filters, lane):
                    for j in range(lane):
                        # From the last pixel to the first: that turns the kernel.
                        transform_kernel(
                            flat, last_pixel + (c + j) * filters + f, -SIZE * size, -size, ALL_OUTPUTS,
                            block, j * lane, SIDE * lane * lane, lane * lane, ALL_INPUTS, 1,
                        )  # fmt: skip
                    for i in range(PLACES):
                        to = i * step + begin * filters + f * here + c - begin
                        tile.transpose_vectors(block, i * lane * lane, target, to, lane, here)


@kernel
def convolve_squares(x, padding, panels, y, scale, shift, residual, rectify, by_filters, threads):
    """Write into y (N, H', W', F) the convolution of x (N, H, W, C), and what follows it (see `product.finish`).

    ``padding`` zeros lie on each side of x; where it is negative, that many pixels are left out. Threads share out the
    squares, or with ``by_filters`` the filters: then each reads only its own transformed weights.
    """
    count, filters = count_squares(y), y.shape[3]
    for thread in prange(threads):
        begin, end = (0, count) if by_filters else part(count, 1, thread, threads)
        first, last = part(filters, VECTORS * lanes(y), thread, threads) if by_filters else (0, filters)
        convolve_some(x, padding, panels, y, begin, end, first, last, (scale, shift, residual, rectify))


@inline
def convolve_some(x, padding, panels, y, begin, end, first_filter, last_filter, following):
    """Do `convolve_squares` for squares begin..end and some filters: the part of one thread."""
    channels, filters, lane = x.shape[3], last_filter - first_filter, lanes(x)
    group = max(SQUARES, BYTES // (PLACES * (channels + filters) * x.itemsize) // ROWS * ROWS)
    group = max(1, min(group, end - begin))
    # A vector more than the squares need: the 25 places, which are written together, would else meet in one set of the
    # first cache. So it is with the slopes and the panels.
    step, out_step = group * channels + lane, group * filters + lane
    inputs, outputs = np.empty(PLACES * step, dtype=x.dtype), np.empty(PLACES * out_step, dtype=x.dtype)
    starts = np.arange(group) * channels
    flat_y, out_line = y.reshape(-1), y.shape[2] * y.shape[3]
    for first in range(begin, end, group):
        some = min(group, end - first)
        transform_squares(x, padding, y, first, some, inputs, step)
        for i in range(PLACES):
            multiply_panels(
                inputs[i * step : (i + 1) * step], starts, some, panels[i, first_filter * channels :], channels,
                outputs[i * out_step : (i + 1) * out_step], filters,
            )  # fmt: skip
        for s in range(some):
            to, written = place_square(first + s, y, y, 0, SIZE)
            restore(
                outputs, s * filters, SIDE * out_step, out_step, ALL_INPUTS,
                flat_y, to + first_filter, out_line, y.shape[3], written, filters // lane,
            )  # fmt: skip
            finish_square(flat_y, to, out_line, y.shape[3], first_filter, last_filter, written, following)


@inline
def transform_squares(x, padding, y, first, count, inputs, step):
    """Write the transforms of the squares of x under squares first.. of y; the 25 places are ``step`` apart."""
    channels, flat = x.shape[3], x.reshape(-1)
    for s in range(count):
        start, read = place_square(first + s, y, x, padding, SIDE)
        transform_inputs(
            flat, start, x.shape[2] * channels, channels, read,
            inputs, s * channels, SIDE * step, step, ALL_INPUTS, channels // lanes(x),
        )  # fmt: skip


@inline
def squares(y):
    """Return how many squares cover an image of y, down and across."""
    return -(-y.shape[1] // SIZE), -(-y.shape[2] // SIZE)


@inline
def count_squares(y):
    """Return how many squares cover all images of y."""
    return len(y) * -(-y.shape[1] // SIZE) * -(-y.shape[2] // SIZE)


@inline
def place_square(square, y, images, padding, size):
    """Return where a square of y begins in flat images (N, H, W, C), and the bits of its pixels, ``size`` a side."""
    down, across = squares(y)
    line = square // across
    image, row, column = line // down, SIZE * (line % down) - padding, SIZE * (square % across) - padding
    height, width, channels = images.shape[1:]
    start = ((image * height + row) * width + column) * channels
    if 0 <= row <= height - size and 0 <= column <= width - size:
        return start, every(size)
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
        row_tiles(x, 0, starts, 0, count, 1, 0, depth, panel, here, y, f, columns, False)


@inline
def finish_square(y, start, line, channels, first, last, written, following):
    """Apply what follows a convolution to channels first..last of the pixels of a square of y that are there."""
    scale, shift, residual, rectify = following
    scales, shifts, adds = scale.size > 0, shift.size > 0, residual.size > 0
    if scales or shifts or adds or rectify:
        others = residual.reshape(-1)
        for i in range(SIZE * SIZE):
            if written >> i & 1:
                place = start + i // SIZE * line + i % SIZE * channels
                for j in range(first, last, lanes(y)):
                    tile.finish_vector(y, place + j, j, scale, shift, others, scales, shifts, adds, rectify)


@kernel
def transformed_gradient(x, padding, dy, parts, threads):
    """Write into parts[0] of parts (1 or threads, 25, C, F) the sum over all squares of dy.

    Threads share out the filters where there is one part; else the squares, and what each has summed is added up.
    """
    count, filters = count_squares(dy), dy.shape[3]
    for thread in prange(threads):
        if len(parts) == 1:
            first, last = part(filters, lanes(dy), thread, threads)
            add_squares(x, padding, dy, parts[0], 0, count, first, last)
        else:
            begin, end = part(count, 1, thread, threads)
            add_squares(x, padding, dy, parts[thread], begin, end, 0, filters)
    flat = parts.reshape(len(parts), -1)
    for thread in prange(threads):
        begin, end = part(flat.shape[1], 1, thread, threads)
        total = flat[0, begin:end]
        for other in range(1, len(parts)):
            some = flat[other, begin:end]
            for i in range(len(total)):
                total[i] += some[i]


@inline
def add_squares(x, padding, dy, sums, begin, end, first_filter, last_filter):
    """Do `transformed_gradient` for squares begin..end and some filters: the part of one thread."""
    channels, filters, lane = x.shape[3], last_filter - first_filter, lanes(x)
    group = max(SLOPE_SQUARES, BYTES // (PLACES * (channels + filters) * x.itemsize))
    group = max(1, min(group, end - begin))
    step, slope_step = group * channels + lane, group * filters + lane
    inputs, slopes = np.empty(PLACES * step, dtype=x.dtype), np.empty(PLACES * slope_step, dtype=x.dtype)
    starts = np.arange(group) * channels
    flat_dy, width = dy.reshape(-1), VECTORS * lane
    if begin == end:
        sums[:, :, first_filter:last_filter] = 0
    for first in range(begin, end, group):
        some = min(group, end - first)
        transform_squares(x, padding, dy, first, some, inputs, step)
        for s in range(some):
            start, read = place_square(first + s, dy, dy, 0, SIZE)
            for f in range(0, filters, width):
                here = panel_width(filters - f, lane)
                transform_kernel(
                    flat_dy, start + first_filter + f, dy.shape[2] * dy.shape[3], dy.shape[3], read,
                    slopes, f * group + s * here, SIDE * slope_step, slope_step, ALL_INPUTS, here // lane,
                )  # fmt: skip
        for i in range(PLACES):
            flat = sums[i].reshape(-1)
            for f in range(0, filters, width):
                here = panel_width(filters - f, lane)
                panel = slopes[i * slope_step + f * group : i * slope_step + f * group + some * here]
                k = 0
                while k < channels:
                    count = tile_rows(channels - k, here // lane)
                    tile.columns(
                        inputs, i * step + k, starts, 0, 0, 0, some, panel,
                        flat, k * dy.shape[3] + first_filter + f, dy.shape[3], first > begin, count, here // lane,
                    )  # fmt: skip
                    k += count


@kernel
def restore_kernels(transformed, dw, threads):
    """Write dw (3, 3, C, F), given its transform (25, C, F)."""
    channels, filters = dw.shape[2:]
    size = channels * filters
    for thread in prange(threads):
        first, last = part(channels, 1, thread, threads)
        for c in range(first, last):
            restore(
                transformed.reshape(-1), c * filters, SIDE * size, size, ALL_INPUTS,
                dw.reshape(-1), c * filters, SIZE * size, size, ALL_OUTPUTS, filters // lanes(dw),
            )  # fmt: skip


def suits(shape: tuple[int, ...], x: Array, y: Array, copies: int = 1) -> bool:
    """Return whether kernels of this shape (KH, KW, C, F) take images x to outputs like y here, with stride 1.

    Channels must fill vectors, and enough multiplications be saved for so many ``copies`` of the transformed weights.
    """
    lane = VECTOR_BYTES // y.itemsize
    saved = len(y) * SIZE * SIZE * y.shape[1] * y.shape[2] - PLACES * count_squares.py_func(y)
    fitting = shape[:2] == (3, 3) and shape[2] % lane == shape[3] % lane == 0 and x.size > 0
    return fitting and saved > copies * SAVED


def few_squares(y: Array) -> bool:
    """Return whether threads should share out the filters of y: the transformed weights are more there than squares."""
    return bool(count_squares.py_func(y) <= y.shape[3])


def panels_of(y: Array) -> int:
    """Return into how many panels the filters of y are cut."""
    return -(-y.shape[3] * y.itemsize // (VECTORS * VECTOR_BYTES))


def convolve(
    x: Array,
    w: Array,
    padding: int,
    y: Array,
    *,
    turned: bool = False,
    scale: Array | None = None,
    shift: Array | None = None,
    residual: Array | None = None,
    rectify: bool = False,
) -> None:
    """Write into y the convolution of x with w (3, 3, C, F), and what follows it (see `product.finish`).

    With ``turned`` w is (3, 3, F, C), and turned by 180 degrees. ``padding`` may be negative.
    """
    panels = empty((PLACES, w.shape[2] * w.shape[3] + VECTOR_BYTES // w.itemsize), w.dtype)
    transform_kernels(packed(w), turned, panels, threads())
    convolve_squares(
        packed(x), padding, panels, y,
        no_vector(y.dtype) if scale is None else packed(scale),
        no_vector(y.dtype) if shift is None else packed(shift),
        no_matrix(y.dtype) if residual is None else rows(residual),
        rectify, few_squares(y) and panels_of(y) >= threads(), threads(),
    )  # fmt: skip


def weight_gradient(dy: Array, x: Array, padding: int) -> Array:
    """Return dw (3, 3, C, F): the sum over all pixels of (patch of x) times (dy at that pixel)."""
    channels, filters = x.shape[3], dy.shape[3]
    parts = empty((1 if few_squares(dy) else threads(), PLACES, channels, filters), x.dtype)
    transformed_gradient(packed(x), padding, packed(dy), parts, threads())
    dw = empty((3, 3, channels, filters), x.dtype)
    restore_kernels(parts[0], dw, threads())
    return dw
