"""The innermost product: a tile of results that stays in the processor's registers.

Numba's own code would hold one number in a register, or leave the choice to LLVM. Here a function writes LLVM's
intermediate code itself, which has vectors: rows x vectors accumulators are loaded once, take part in all steps of a
sum, and are stored once. A step loads the vectors of one operand, and for each row one number of the other, which is
spread over a vector; so 6 x 4 fused multiply-adds need only 6 + 4 loads, and with enough accumulators the processor
starts a multiply-add in every slot it has.
Source: Goto and van de Geijn 2008 (Anatomy of high-performance matrix multiplication), section 4; Georganas et al.
2018 (Anatomy of high-performance deep learning convolutions), section II.
"""

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _registers() -> tuple[int, int, int]:
    """Return ``(bytes of a vector, most rows, most vectors of a tile)`` for this processor's vector registers."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 12, 4  # 32 registers: 24 accumulators, up to four vectors of the panel, the rest for LLVM
    if features.get("avx2") or features.get("avx"):
        return 32, 6, 2  # 16 registers: 12 accumulators
    if llvm.get_default_triple().startswith(("aarch64", "arm64")):
        return 16, 12, 4  # NEON has 32
    return 16, 4, 2


VECTOR_BYTES, ROWS, VECTORS = _registers()
TALLEST = tuple(ROWS if vectors <= 2 else ROWS // 2 for vectors in range(VECTORS + 1))  # rows, given the vectors
FEW_ROWS = 4 if ROWS > 4 else 2  # for what is left of the rows; then one by one

_INT = ir.IntType(64)


def _tile(gathered: bool) -> Any:
    """Return the function that adds up one tile of results: code for each of its sizes, and the choice among them."""

    @intrinsic
    def tile(
        typing, x, x_start, places, place, segments, segment_stride, length, panel, y, y_start, y_stride, add,
        rows, vectors,
    ):  # fmt: skip
        integer = types.intp
        signature = types.void(
            x, integer, places, integer, integer, integer, integer, panel, y, integer, integer, types.boolean,
            integer, integer,
        )  # fmt: skip
        scalar = ir.DoubleType() if y.dtype == types.float64 else ir.FloatType()

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            *operands, rows, vectors = arguments
            for width in range(1, VECTORS + 1):
                with builder.if_then(builder.icmp_signed("==", vectors, _INT(width))):
                    for height in (TALLEST[width], FEW_ROWS, 1):
                        with builder.if_then(builder.icmp_signed("==", rows, _INT(height))):
                            _Emitter(height, width, gathered, scalar)(context, builder, signature, operands)
            return context.get_dummy_value()

        return signature, emit

    return tile


class _Emitter:
    """Writes the intermediate code of a tile of rows x (vectors of numbers)."""

    def __init__(self, rows: int, vectors: int, gathered: bool, scalar: Any) -> None:
        self.rows, self.vectors, self.gathered = rows, vectors, gathered
        self.lanes = VECTOR_BYTES // (8 if isinstance(scalar, ir.DoubleType) else 4)
        self.align = 8 if isinstance(scalar, ir.DoubleType) else 4
        self.vector = ir.VectorType(scalar, self.lanes)

    def __call__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.builder = builder
        x, x_start, places, place, segments, stride, length, panel, y, y_start, y_stride, add = arguments
        x, places, panel, y = data_of(context, builder, signature, arguments, (0, 2, 7, 8))
        x, y, places = builder.gep(x, [x_start]), builder.gep(y, [y_start]), builder.gep(places, [place])
        cells = [[self._cell(y, y_stride, r, v) for v in range(self.vectors)] for r in range(self.rows)]
        sums = [[cgutils.alloca_once(builder, self.vector) for _ in row] for row in cells]
        self._start(sums, cells, add)
        step = self._stepper(sums, panel)
        if self.gathered:
            # One row of x after the other: the tile's rows are neighbours in memory, and `places` tells each step's.
            with cgutils.for_range(builder, length) as loop:
                row = builder.gep(x, [builder.load(builder.gep(places, [loop.index]))])
                step([builder.gep(row, [_INT(r)]) for r in range(self.rows)])
        else:
            # `places` tells where each of the tile's rows begins; the steps are neighbours within a segment.
            begins = [builder.gep(x, [builder.load(builder.gep(places, [_INT(r)]))]) for r in range(self.rows)]
            with cgutils.for_range(builder, segments) as segment:
                shift = builder.mul(segment.index, stride)
                pointers = [builder.gep(begin, [shift]) for begin in begins]
                with cgutils.for_range(builder, length) as loop:
                    step([builder.gep(pointer, [loop.index]) for pointer in pointers])
        for sum_row, cell_row in zip(sums, cells, strict=True):
            for total, cell in zip(sum_row, cell_row, strict=True):
                builder.store(builder.load(total), cell, align=self.align)

    def _cell(self, y: Any, stride: Any, r: int, v: int) -> Any:
        """Return where vector v of row r of the result lies."""
        place = self.builder.add(self.builder.mul(_INT(r), stride), _INT(v * self.lanes))
        return self.builder.bitcast(self.builder.gep(y, [place]), self.vector.as_pointer())

    def _start(self, sums: Any, cells: Any, add: Any) -> None:
        """Begin with what is there where ``add``, else with zeros."""
        zero = ir.Constant(self.vector, [0.0] * self.lanes)
        with self.builder.if_else(cgutils.is_not_null(self.builder, add)) as (there, nothing):
            with there:
                for sum_row, cell_row in zip(sums, cells, strict=True):
                    for total, cell in zip(sum_row, cell_row, strict=True):
                        self.builder.store(self.builder.load(cell, align=self.align), total)
            with nothing:
                for total in (total for sum_row in sums for total in sum_row):
                    self.builder.store(zero, total)

    def _stepper(self, sums: Any, panel: Any) -> Any:
        """Return a function that writes one step, given where each row's number lies."""
        builder = self.builder
        position = cgutils.alloca_once_value(builder, panel)

        def step(numbers: Any) -> None:
            block = Block(builder, [builder.load(position)])
            columns = [block.load(0, v * self.lanes) for v in range(self.vectors)]
            for number, sum_row in zip(numbers, sums, strict=True):
                value = builder.load(number, align=self.align)
                for column, total in zip(columns, sum_row, strict=True):
                    builder.store(block.multiply_add(value, column, builder.load(total)), total)
            builder.store(builder.gep(block.begins[0], [_INT(self.vectors * self.lanes)]), position)

        return step


# rows: places[place + r] is where row r of the tile begins in x; the sum runs over segments of `length` neighbours.
# columns: the tile's rows are neighbours in x; the sum runs over places[place .. place + length).
# Both write ``rows`` (TALLEST[vectors], FEW_ROWS or 1) times ``vectors`` (1 to VECTORS) of y, or ``add`` to them.
rows, columns = _tile(False), _tile(True)


def _copy(vectors: int) -> Any:
    """Return the function that copies groups of so many vectors."""

    @intrinsic
    def copy(typing, source, source_start, target, target_start, count, stride, ahead):
        """Copy ``count`` groups that are neighbours in one flat array to places a stride apart in another.

        The source ``ahead`` numbers further on is fetched meanwhile (see `add_multiples`).
        """
        signature = types.void(source, types.intp, target, types.intp, types.intp, types.intp, types.intp)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            block = Block(builder, _begins(context, builder, signature, arguments))
            count, stride, ahead = arguments[4:]
            with cgutils.for_range(builder, count) as loop:
                place, there = builder.mul(loop.index, _INT(vectors * block.lanes)), builder.mul(loop.index, stride)
                for v in range(vectors):
                    shift = _INT(v * block.lanes)
                    block.fetch(0, builder.add(builder.add(place, ahead), shift))
                    block.store(1, block.load(0, builder.add(place, shift)), builder.add(there, shift))
            return context.get_dummy_value()

        return signature, emit

    return copy


copy_wide, copy_narrow = _copy(VECTORS), _copy(1)


@intrinsic
def gather(typing, x, x_start, places, place, target, target_start, count):
    """Copy ROWS neighbours at x_start + places[place + m] for each m below ``count``, one after the other."""
    signature = types.void(x, types.intp, places, types.intp, target, types.intp, types.intp)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, places, target = data_of(context, builder, signature, arguments, (0, 2, 4))
        x, places, target = (builder.gep(a, [arguments[i]]) for a, i in ((x, 1), (places, 3), (target, 5)))
        align = Block(builder, [x]).align
        vector = ir.VectorType(x.type.pointee, ROWS).as_pointer()
        with cgutils.for_range(builder, arguments[6]) as loop:
            row = builder.gep(x, [builder.load(builder.gep(places, [loop.index]))])
            there = builder.gep(target, [builder.mul(loop.index, _INT(ROWS))])
            numbers = builder.load(builder.bitcast(row, vector), align=align)
            builder.store(numbers, builder.bitcast(there, vector), align=align)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def transpose_vectors(typing, source, source_start, target, target_start, source_stride, target_stride):
    """Write the transpose of a square block, as many numbers a side as a vector holds; rows are a stride apart."""
    signature = types.void(source, types.intp, target, types.intp, types.intp, types.intp)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = Block(builder, _begins(context, builder, signature, arguments))
        lanes = block.lanes
        rows = [block.load(0, builder.mul(_INT(r), arguments[4])) for r in range(lanes)]
        # Swap the off-diagonal quarters, then those of each quarter, and so on down to single numbers.
        half = lanes // 2
        while half:
            for r in (r for r in range(lanes) if not r & half):
                upper, lower = rows[r], rows[r + half]
                left = [lanes + j - half if j & half else j for j in range(lanes)]
                rows[r] = block.pick(upper, lower, left)
                rows[r + half] = block.pick(upper, lower, [j + half for j in left])
            half //= 2
        for r in range(lanes):
            block.store(1, rows[r], builder.mul(_INT(r), arguments[5]))
        return context.get_dummy_value()

    return signature, emit


STRIP = 8  # rows of a matrix that `add_multiples` reads side by side


@intrinsic
def add_multiples(typing, x, x_start, source, source_start, stride, target, target_start, count, ahead):
    """Add to ``count`` vectors at the target x[i] times those of row i of the source, for STRIP rows a stride apart.

    Where ``ahead`` is not zero, the source that many numbers further on is fetched meanwhile: a
    matrix that is read once, in pieces of rows, is not foreseen by the processor.
    """
    integer = types.intp
    signature = types.void(x, integer, source, integer, integer, target, integer, integer, integer)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x_start, source_start, stride, target_start, count, ahead = (arguments[i] for i in (1, 3, 4, 6, 7, 8))
        numbers, source, target = data_of(context, builder, signature, arguments, (0, 2, 5))
        numbers, target = builder.gep(numbers, [x_start]), builder.gep(target, [target_start])
        rows = [builder.gep(source, [builder.add(source_start, builder.mul(_INT(i), stride))]) for i in range(STRIP)]
        block = Block(builder, [target, *rows])
        factors = [builder.load(builder.gep(numbers, [_INT(i)]), align=block.align) for i in range(STRIP)]
        fetches = builder.icmp_signed("!=", ahead, _INT(0))
        with cgutils.for_range(builder, count) as loop:
            place = builder.mul(loop.index, _INT(block.lanes))
            with builder.if_then(fetches):
                for i in range(STRIP):
                    block.fetch(1 + i, builder.add(place, ahead))
            total = block.load(0, place)
            for i, factor in enumerate(factors):
                total = block.multiply_add(factor, block.load(1 + i, place), total)
            block.store(0, total, place)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def largest_of_window(typing, x, corner, line, pixel, first_a, last_a, first_b, last_b, size, best, at, out):
    """Write one vector of the largest numbers of a window, and the places a * size + b where they stand, at ``out``.

    Row a and column b of the window lie at corner + a * line + b * pixel in x (flat); those in first..last are in the
    image. The first of equal numbers counts, and a NaN does in any case.
    """
    signature = types.void(x, *[types.intp] * 8, best, at, types.intp)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        corner, line, pixel, first_a, last_a, first_b, last_b, size = arguments[1:9]
        numbers, largest, places = data_of(context, builder, signature, arguments, (0, 9, 10))
        block = Block(builder, [builder.gep(numbers, [corner]), builder.gep(largest, [arguments[11]])])
        scalar, kind = largest.type.pointee, ir.VectorType(places.type.pointee, block.lanes)

        def place_of(a: Any, b: Any) -> Any:
            return block.spread(builder.sitofp(builder.add(builder.mul(a, size), b), scalar))

        best = cgutils.alloca_once_value(builder, ir.Constant(block.vector, [float("-inf")] * block.lanes))
        place = cgutils.alloca_once_value(builder, place_of(first_a, first_b))
        rows = cgutils.for_range_slice(builder, first_a, last_a, _INT(1))
        columns = cgutils.for_range_slice(builder, first_b, last_b, _INT(1))
        with rows as (a, _), columns as (b, _):
            number = block.load(0, builder.add(builder.mul(a, line), builder.mul(b, pixel)))
            larger = builder.fcmp_ordered(">", number, builder.load(best))
            larger = builder.or_(larger, builder.fcmp_unordered("uno", number, number))
            builder.store(builder.select(larger, number, builder.load(best)), best)
            builder.store(builder.select(larger, place_of(a, b), builder.load(place)), place)
        block.store(1, builder.load(best), 0)
        target = builder.bitcast(builder.gep(places, [arguments[11]]), kind.as_pointer())
        builder.store(builder.fptoui(builder.load(place), kind), target, align=1)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def finish_vector(typing, y, place, column, scale, shift, residual, scales, shifts, adds, rectifies):
    """Apply y * scale + shift + residual and the rectifier, each where asked, to one vector of y at ``place``.

    scale and shift (vectors, read at ``column``) and residual (flat, at ``place``) are read only where asked.
    """
    signature = types.void(y, types.intp, types.intp, scale, shift, residual, *[types.boolean] * 4)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, column = arguments[1:3]
        block = Block(builder, data_of(context, builder, signature, arguments, (0, 3, 4, 5)))
        number = cgutils.alloca_once_value(builder, block.load(0, place))
        for asked, array, at, combine in (
            (6, 1, column, builder.fmul), (7, 2, column, builder.fadd), (8, 3, place, builder.fadd),
        ):  # fmt: skip
            with builder.if_then(arguments[asked]):
                builder.store(combine(builder.load(number), block.load(array, at)), number)
        with builder.if_then(arguments[9]):
            value, zero = builder.load(number), ir.Constant(block.vector, [0.0] * block.lanes)
            builder.store(builder.select(builder.fcmp_ordered("<", value, zero), zero, value), number)
        block.store(0, builder.load(number), place)
        return context.get_dummy_value()

    return signature, emit


def data_of(context: Any, builder: Any, signature: Any, arguments: Any, places: tuple[int, ...]) -> list[Any]:
    """Return where the data of some of the arguments, arrays, begin."""
    return [context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in places]


def _begins(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:
    """Return where the two operands begin that the first four arguments tell: array, start, array, start."""
    arrays = data_of(context, builder, signature, arguments, (0, 2))
    return [builder.gep(array, [start]) for array, start in zip(arrays, arguments[1:4:2], strict=True)]


class Block:
    """Loads and stores vectors at a place in one of some flat arrays."""

    def __init__(self, builder: Any, begins: list[Any]) -> None:
        self.builder, self.begins = builder, begins
        scalar = begins[0].type.pointee
        self.align = 8 if isinstance(scalar, ir.DoubleType) else 4
        self.lanes = VECTOR_BYTES // self.align
        self.vector = ir.VectorType(scalar, self.lanes)

    def _at(self, array: int, place: Any) -> Any:
        place = _INT(place) if isinstance(place, int) else place
        return self.builder.bitcast(self.builder.gep(self.begins[array], [place]), self.vector.as_pointer())

    def load(self, array: int, place: Any) -> Any:
        return self.builder.load(self._at(array, place), align=self.align)

    def store(self, array: int, value: Any, place: Any) -> None:
        self.builder.store(value, self._at(array, place), align=self.align)

    def fetch(self, array: int, place: Any) -> None:
        """Ask for a place in memory to be brought to the first cache; it need not exist."""
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        address = self.builder.bitcast(self.builder.gep(self.begins[array], [place]), byte)
        self.builder.call(function, (address, flag(0), flag(3), flag(1)))

    def multiply_add(self, number: Any, factor: Any, term: Any) -> Any:
        """Return number * factor + term, the number spread over a vector."""
        vector, builder = self.vector, self.builder
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.align}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
        return builder.call(function, (self.spread(number), factor, term))

    def spread(self, number: Any) -> Any:
        """Return a vector that holds one number in all places."""
        first = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), number, ir.IntType(32)(0))
        return self.pick(first, first, [0] * self.lanes)

    def pick(self, a: Any, b: Any, places: list[int]) -> Any:
        """Return the numbers at ``places`` of a followed by b."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places))
