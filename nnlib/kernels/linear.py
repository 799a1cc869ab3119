"""The affine layer as a product of rows with the weight matrix."""

from nnlib.functional import linear_backward as plain_backward
from nnlib.functional import linear_forward as plain_forward
from nnlib.functional.checks import Array, same_shape
from nnlib.functional.linear import check_operands
from nnlib.kernels.arrays import no_matrix, no_vector, packed, rows, twin
from nnlib.kernels.convolution import in_order, places
from nnlib.kernels.elementwise import column_sums, transpose
from nnlib.kernels.product import product, transposed_product
from nnlib.kernels.runtime import threads, threads_for, threads_for_product
from nnlib.memory import empty


@twin(plain_forward)
def linear_forward(x: Array, w: Array, b: Array) -> Array:
    check_operands(x, w, b)
    return affine(x, w, b)


@twin(plain_backward)
def linear_backward(
    dy: Array, x: Array, w: Array, *, input_grad: bool = True
) -> tuple[Array | None, Array, Array]:
    check_operands(x, w)
    same_shape("linear: dy", dy, (len(x), w.shape[1]))
    dx = input_gradient(dy, w, x.shape) if input_grad else None
    return dx, weight_gradient(dy, x, w.shape), column_sums(dy)


def affine(
    x: Array,
    w: Array,
    shift: Array | None = None,
    *,
    transposed: bool = False,
    scale: Array | None = None,
    residual: Array | None = None,
    rectify: bool = False,
) -> Array:
    """Return x w (or x w^T) * scale + shift + residual, rectified where asked."""
    length, columns = w.shape[::-1] if transposed else w.shape
    y = empty((len(x), columns), x.dtype)
    product(
        packed(x).reshape(-1), _rows(len(x), length), 1, 0, length,
        packed(w)[None], in_order(1), transposed, y,
        no_vector(x.dtype) if scale is None else packed(scale),
        no_vector(x.dtype) if shift is None else packed(shift),
        no_matrix(x.dtype) if residual is None else rows(residual),
        rectify, threads_for_product(len(x), w.size),
    )  # fmt: skip
    return y


def weight_gradient(dy: Array, x: Array, shape: tuple[int, ...]) -> Array:
    """Return dw = x^T dy."""
    dw = empty(shape, x.dtype)
    transposed_product(packed(x).reshape(-1), _rows(len(x), shape[0]), 1, 0, shape[0], packed(dy), dw, threads())
    return dw


def input_gradient(dy: Array, w: Array, shape: tuple[int, ...], residual: Array | None = None) -> Array:
    """Return dx = dy w^T of the given shape, plus ``residual``.

    It is computed as the transpose of w dy^T: the weights' rows are read where they stand, and what is copied into
    panels is the smaller matrix.
    """
    turned = affine(w, dy, transposed=True)
    dx = empty(turned.shape[::-1], dy.dtype)
    transpose(turned, dx, threads_for(dx.size))
    dx = dx.reshape(shape)
    return dx if residual is None else dx + residual


def _rows(count: int, length: int) -> Array:
    return places(count, 1, 1, 1, 1, length, 1)
