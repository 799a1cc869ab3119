"""Convolution, pooling and batch normalisation: against loops, numerical gradients and PyTorch, and each other.

An error is the largest |a - b| over an array, divided by the largest |b| or by 1, whichever is more: operands are of
order 1, so a result near 0 is a sum of such terms that cancel, and is exact to their size, not to its own.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib import functional, kernels
from nnlib.functional import conv
from nnlib.gradcheck import check

DTYPES = [np.float64, np.float32]
LIMIT = {np.float64: 1e-10, np.float32: 2e-5}
GRADIENT = 1e-6  # largest relative error against numerical gradients, float64
LARGE_STEP = 1.0  # where the function is linear in each operand: no truncation error, least rounding
CHANNELS = [(1, 5), (3, 16), (16, 3), (33, 17), (1, 1), (130, 127)]  # in, out; the last are multiplied by offsets

both = pytest.mark.parametrize("module", [functional, kernels], ids=["functional", "kernels"])
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
examples = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def convolutions(draw):
    """Draw shapes, stride and padding of a convolution that has an output."""
    kh, kw = (draw(st.sampled_from([1, 2, 3, 5, 7])) for _ in range(2))
    stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    height, width = (max(draw(st.integers(1, 9)), k - 2 * padding) for k in (kh, kw))
    c, f = draw(st.sampled_from(CHANNELS))
    x, w = (draw(st.integers(1, 4)), height, width, c), (kh, kw, c, f)
    bias, seed = draw(st.booleans()), draw(st.integers(0, 99))
    return SimpleNamespace(x=x, w=w, stride=stride, padding=padding, bias=bias, seed=seed)


@st.composite
def squares(draw):
    """Draw a convolution that is done in squares of 3 x 3 outputs, whole ones and others."""
    padding = draw(st.integers(0, 4))
    height, width = (max(draw(st.integers(1, 9)), 3 - 2 * padding) for _ in range(2))
    c, f = (16 * draw(st.integers(1, 3)) for _ in range(2))  # vectors of both types, on any processor
    x, w = (draw(st.integers(1, 5)), height, width, c), (3, 3, c, f)
    return SimpleNamespace(x=x, w=w, stride=1, padding=padding, bias=draw(st.booleans()), seed=draw(st.integers(0, 99)))


@contextmanager
def in_squares():
    """Let kernels of 3 x 3 pixels be convolved in squares also where that saves nothing; yield what was called."""
    winograd, calls = pytest.importorskip("nnlib.kernels.winograd"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "SAVED", -10_000)
        for name in ("convolve", "weight_gradient"):
            function = getattr(winograd, name)
            patch.setattr(winograd, name, lambda *a, f=function, **o: (calls.append(f.__name__), f(*a, **o))[1])
        yield calls


@st.composite
def poolings(draw):
    """Draw shape, window, stride and padding of a pooling that has an output."""
    size = draw(st.sampled_from([1, 2, 3, 4, 5]))
    padding = draw(st.integers(0, size // 2))
    height, width = (max(draw(st.integers(1, 10)), size - 2 * padding) for _ in range(2))
    x = (draw(st.integers(1, 4)), height, width, draw(st.sampled_from([1, 3, 16, 33])))
    stride = draw(st.none() | st.integers(1, 4))
    return SimpleNamespace(x=x, size=size, stride=stride, padding=padding, seed=draw(st.integers(0, 99)))


@st.composite
def norms(draw):
    """Draw a shape with two values or more a channel."""
    c = draw(st.sampled_from([1, 3, 16, 33]))
    n, height, width = draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    shape = (max(2, n), c) if draw(st.booleans()) else (max(n, 3 - height * width), height, width, c)
    return SimpleNamespace(x=shape, train=draw(st.booleans()), seed=draw(st.integers(0, 99)))


def frozen(*arrays):
    """Make arrays read-only: whoever writes into an operand fails."""
    for array in arrays:
        array.flags.writeable = False
    return arrays


def same(results, expected, dtype):
    """Assert that pairs have one shape, the dtype, and an error below its limit."""
    for k, (a, b) in enumerate(zip(results, expected, strict=True)):
        assert (a.shape, a.dtype) == (b.shape, dtype), k
        assert a.size == 0 or np.abs(a - b).max() / max(1.0, np.abs(b).max()) <= LIMIT[dtype], k


def worst(f, arrays, gradients, **options):
    return max(one.relative_error for one in check(f, arrays, gradients, **options))


def conv_operands(case, dtype):
    """Return x, w, b or None and dy."""
    rng = np.random.default_rng(case.seed)
    out = [(n + 2 * case.padding - k) // case.stride + 1 for n, k in zip(case.x[1:3], case.w[:2], strict=True)]
    shapes = [case.x, case.w, case.w[3:], (case.x[0], *out, case.w[3])]
    x, w, b, dy = frozen(*(rng.normal(size=shape).astype(dtype) for shape in shapes))
    return x, w, b if case.bias else None, dy


def norm_case(case, dtype):
    """Return x, gamma, beta, dy and two statistics; x has a deviation near 1 in each channel, however few values."""
    rng = np.random.default_rng(case.seed)
    c, m = case.x[-1], int(np.prod(case.x[:-1]))
    spread = rng.permuted(np.tile(np.linspace(-1.5, 1.5, m)[:, None], c), axis=0) + rng.uniform(-0.2, 0.2, size=(m, c))
    x = (spread + rng.normal(size=c)).reshape(case.x)
    gamma, beta, dy, mean, var = (rng.normal(size=s) for s in (c, c, case.x, c, c))
    return *frozen(*(a.astype(dtype) for a in (x, gamma, beta, dy))), mean.astype(dtype), (var**2 + 0.5).astype(dtype)


def nchw(torch, array):
    """Return NHWC images, (N, C) rows or HWIO weights as a leaf tensor in PyTorch's order."""
    order = {4: (0, 3, 1, 2)}.get(array.ndim, tuple(range(array.ndim)))
    return torch.tensor(np.ascontiguousarray(array.transpose(order)), requires_grad=True)


def nhwc(tensor):
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


# --- the definitions, as loops


def conv_loops(x, w, b, stride, padding):
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    kh, kw, _, f = w.shape
    y = np.zeros((len(x), (padded.shape[1] - kh) // stride + 1, (padded.shape[2] - kw) // stride + 1, f))
    for n, i, j, k in np.ndindex(*y.shape):
        patch = padded[n, i * stride : i * stride + kh, j * stride : j * stride + kw]
        y[n, i, j, k] = (patch * w[..., k]).sum() + (0 if b is None else b[k])
    return y


def pool_loops(x, size, stride, padding):
    n, height, width, c = x.shape
    shape = (n, (height + 2 * padding - size) // stride + 1, (width + 2 * padding - size) // stride + 1, c)
    y, argmax = np.full(shape, -np.inf), np.zeros(shape, dtype=int)
    for place in np.ndindex(*shape):
        image, i, j, channel = place
        seen = []
        for k in range(size * size):
            row, column = i * stride + k // size - padding, j * stride + k % size - padding
            if 0 <= row < height and 0 <= column < width:
                seen.append((x[image, row, column, channel], -k))
        y[place], place_in_window = max(seen)
        argmax[place] = -place_in_window
    return y, argmax


@both
@settings(max_examples=15, deadline=None, derandomize=True)
@given(case=convolutions().filter(lambda case: case.w[2] < 33))
def test_convolution_equals_its_definition(module, case):
    x, w, b, _ = conv_operands(case, np.float64)
    y = module.conv2d_forward(x, w, b, stride=case.stride, padding=case.padding)
    same([y], [conv_loops(x, w, b, case.stride, case.padding)], np.float64)


@both
@dtypes
@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=poolings(), ties=st.booleans())
def test_pooling_equals_its_definition_and_takes_the_first_of_equals(module, dtype, case, ties):
    rng = np.random.default_rng(case.seed)
    (x,) = frozen((rng.integers(0, 3, size=case.x) if ties else rng.normal(size=case.x)).astype(dtype))
    y, argmax = module.max_pool2d_forward(x, case.size, stride=case.stride, padding=case.padding)
    expected, places = pool_loops(x, case.size, case.stride or case.size, case.padding)
    assert np.array_equal(y, expected)
    assert np.array_equal(argmax, places)
    assert (y.dtype, argmax.dtype) == (dtype, np.uint8)


@both
def test_argmax_is_as_wide_as_the_window_needs(module):
    x = np.zeros((1, 17, 17, 1))
    x[0, 16, 15] = 1
    y, argmax = module.max_pool2d_forward(x, 17)
    assert (y.item(), argmax.item(), argmax.dtype) == (1.0, 16 * 17 + 15, np.uint16)
    assert np.array_equal(module.max_pool2d_backward(np.ones_like(y), argmax, x.shape, 17), x)


@both
def test_a_window_of_minus_infinities_finds_a_pixel_and_not_the_padding(module):
    x = np.full((1, 2, 2, 1), -np.inf)
    y, argmax = module.max_pool2d_forward(x, 3, stride=2, padding=1)
    assert y.item() == -np.inf
    assert argmax.item() == 4
    assert module.max_pool2d_backward(np.ones_like(y), argmax, x.shape, 3, stride=2, padding=1).sum() == 1


@both
def test_pooling_lets_no_nan_disappear(module):
    x = np.zeros((1, 2, 4, 1))
    x[0, 0, 1] = x[0, 1, 2] = np.nan
    assert np.isnan(module.max_pool2d_forward(x, 2)[0]).all()


@both
@dtypes
def test_global_average_is_the_mean_over_the_pixels_and_its_gradient_is_shared_out(module, dtype):
    rng = np.random.default_rng(0)
    x, dy = frozen(rng.normal(size=(3, 5, 4, 6)).astype(dtype), rng.normal(size=(3, 6)).astype(dtype))
    dx = module.global_avg_pool2d_backward(dy, x.shape)
    same([module.global_avg_pool2d_forward(x), dx], [x.mean((1, 2)), np.ones_like(x) * dy[:, None, None] / 20], dtype)


@both
@dtypes
@examples
@given(case=norms())
def test_batch_norm_equals_its_formula(module, dtype, case):
    x, gamma, beta, _, mean, var = norm_case(case, dtype)
    y, _ = module.batch_norm_forward(x, gamma, beta, mean.copy(), var.copy(), train=case.train)
    axes = tuple(range(x.ndim - 1))
    exact = x.astype(np.float64)
    mean, var = (exact.mean(axes), exact.var(axes)) if case.train else (mean, var)
    same([y], [(exact - mean) / np.sqrt(var + 1e-5) * gamma + beta], dtype)


# --- numerical gradients


@both
@pytest.mark.parametrize(
    ("x", "w", "stride", "padding"),
    [
        ((2, 5, 4, 2), (3, 3, 2, 3), 1, 1),
        ((2, 6, 5, 2), (2, 3, 2, 2), 2, 0),
        ((1, 5, 5, 1), (5, 3, 1, 2), 1, 0),
        ((2, 4, 4, 3), (1, 1, 3, 2), 2, 0),
        ((2, 1, 1, 2), (3, 3, 2, 2), 1, 1),
        ((1, 2, 3, 2), (1, 2, 2, 2), 1, 2),
        ((1, 7, 6, 6), (3, 2, 6, 5), 3, 2),
        ((1, 2, 3, 130), (3, 3, 130, 127), 2, 1),
        ((40, 9, 7, 8), (3, 3, 8, 16), 1, 1),  # in squares
    ],
)
def test_convolution_has_its_numerical_gradients(module, x, w, stride, padding):
    case = SimpleNamespace(x=x, w=w, stride=stride, padding=padding, bias=True, seed=5)
    x, w, b, dy = (array.copy() for array in conv_operands(case, np.float64))
    dx, dw, db = module.conv2d_backward(dy, x, w, stride=stride, padding=padding)
    assert worst(
        lambda: float((dy * module.conv2d_forward(x, w, b, stride=stride, padding=padding)).sum()),
        {"x": x, "w": w, "b": b}, {"x": dx, "w": dw, "b": db}, step=LARGE_STEP, sample=80, rng=np.random.default_rng(1),
    ) <= GRADIENT  # fmt: skip
    none, *others = module.conv2d_backward(dy, x, w, stride=stride, padding=padding, input_grad=False)
    assert none is None
    same(others, [dw, db], np.float64)


@both
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, None, 0), (3, 2, 1), (3, 1, 0), (2, 3, 1), (1, 2, 0)])
def test_pooling_has_its_numerical_gradients(module, size, stride, padding):
    rng = np.random.default_rng(2)
    x = rng.permutation(210).reshape(2, 7, 5, 3) / 10.0
    y, argmax = module.max_pool2d_forward(x, size, stride=stride, padding=padding)
    dy = rng.normal(size=y.shape)
    dx = module.max_pool2d_backward(dy, argmax, x.shape, size, stride=stride, padding=padding)
    assert worst(
        lambda: float((dy * module.max_pool2d_forward(x, size, stride=stride, padding=padding)[0]).sum()),
        {"x": x}, {"x": dx}, step=1e-2,  # values are 0.1 apart: no step changes which is the largest
    ) <= GRADIENT  # fmt: skip


@both
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (3, 2, 4, 2)])
def test_batch_norm_has_its_numerical_gradients(module, shape, train):
    x, gamma, beta, dy, mean, var = norm_case(SimpleNamespace(x=shape, seed=4), np.float64)
    x, gamma, beta = x.copy(), gamma.copy(), beta.copy()

    def forward():
        return module.batch_norm_forward(x, gamma, beta, mean.copy(), var.copy(), train=train)

    dx, dgamma, dbeta = module.batch_norm_backward(dy, forward()[1])
    arrays, gradients = {"x": x, "gamma": gamma, "beta": beta}, {"x": dx, "gamma": dgamma, "beta": dbeta}
    assert worst(lambda: float((dy * forward()[0]).sum()), arrays, gradients, step=1e-4) <= GRADIENT


# --- PyTorch


@both
@dtypes
@examples
@given(case=convolutions())
def test_convolution_equals_pytorch(torch, module, dtype, case):
    convolution_equals_pytorch(torch, module, dtype, case)


@dtypes
@examples
@given(case=squares())
def test_convolution_in_squares_equals_pytorch(torch, dtype, case):
    with in_squares() as calls:
        convolution_equals_pytorch(torch, kernels, dtype, case)
    assert calls == ["convolve", "weight_gradient", "convolve"]


@dtypes
def test_many_squares_are_added_up_in_lots(dtype):
    case = SimpleNamespace(x=(60, 9, 9, 16), w=(3, 3, 16, 48), stride=1, padding=1, bias=True, seed=0)
    x, w, b, dy = conv_operands(case, dtype)
    with in_squares() as calls:
        results = [kernels.conv2d_forward(x, w, b, padding=1), *kernels.conv2d_backward(dy, x, w, padding=1)]
    assert calls == ["convolve", "convolve", "weight_gradient"]
    expected = [functional.conv2d_forward(x, w, b, padding=1), *functional.conv2d_backward(dy, x, w, padding=1)]
    same(results, expected, dtype)


def convolution_equals_pytorch(torch, module, dtype, case):
    x, w, b, dy = conv_operands(case, dtype)
    options = {"stride": case.stride, "padding": case.padding}
    images, bias = nchw(torch, x), None if b is None else nchw(torch, b)
    weights = torch.tensor(w.transpose(3, 2, 0, 1).copy(), requires_grad=True)
    y = torch.nn.functional.conv2d(images, weights, bias, **options)
    y.backward(nchw(torch, dy))
    expected = [nhwc(y), nhwc(images.grad), weights.grad.numpy().transpose(2, 3, 1, 0)]
    dx, dw, db = module.conv2d_backward(dy, x, w, **options)
    same([module.conv2d_forward(x, w, b, **options), dx, dw], expected, dtype)
    same([db], [dy.sum((0, 1, 2), dtype=np.float64) if b is None else bias.grad.numpy()], dtype)


@both
@dtypes
@examples
@given(case=poolings(), ties=st.booleans())
def test_pooling_equals_pytorch(torch, module, dtype, case, ties):
    rng = np.random.default_rng(case.seed)
    (x,) = frozen((rng.integers(0, 3, size=case.x) if ties else rng.normal(size=case.x)).astype(dtype))
    images = nchw(torch, x)
    expected = torch.nn.functional.max_pool2d(images, case.size, case.stride, case.padding)
    options = {"stride": case.stride, "padding": case.padding}
    y, argmax = module.max_pool2d_forward(x, case.size, **options)
    (dy,) = frozen(rng.normal(size=y.shape).astype(dtype))
    expected.backward(nchw(torch, dy))
    frozen(argmax)
    dx = module.max_pool2d_backward(dy, argmax, x.shape, case.size, **options)
    same([y, dx], [nhwc(expected), nhwc(images.grad)], dtype)


@both
@dtypes
@examples
@given(case=norms())
def test_batch_norm_equals_pytorch_over_three_steps(torch, module, dtype, case):
    mean = var = running = None
    for step in range(3):
        case.seed += 100 * step
        x, gamma, beta, dy, *statistics = norm_case(case, dtype)
        if step == 0:
            mean, var = statistics
            running = [torch.tensor(statistic.copy()) for statistic in statistics]
        images, *factors = (nchw(torch, array) for array in (x, gamma, beta))
        expected = torch.nn.functional.batch_norm(images, *running, *factors, training=case.train)
        expected.backward(nchw(torch, dy))
        y, context = module.batch_norm_forward(x, gamma, beta, mean, var, train=case.train)
        gradients = module.batch_norm_backward(dy, context)
        same([y, *gradients], [nhwc(t) for t in (expected, images.grad, *(f.grad for f in factors))], dtype)
        same([mean, var], [statistic.numpy() for statistic in running], dtype)


# --- what every implementation keeps


@dtypes
@examples
@given(case=squares())
def test_convolution_in_squares_equals_its_function(dtype, case):
    x, w, b, dy = conv_operands(case, dtype)
    options = {"stride": 1, "padding": case.padding}
    with in_squares() as calls:
        results = [kernels.conv2d_forward(x, w, b, **options), *kernels.conv2d_backward(dy, x, w, **options)]
    assert calls == ["convolve", "convolve", "weight_gradient"]
    expected = [functional.conv2d_forward(x, w, b, **options), *functional.conv2d_backward(dy, x, w, **options)]
    same(results, expected, dtype)


@dtypes
@examples
@given(case=convolutions(), pooling=poolings(), norm=norms())
def test_kernels_equal_functions(dtype, case, pooling, norm):
    def results(module):
        x, w, b, dy = conv_operands(case, dtype)
        options = {"stride": case.stride, "padding": case.padding}
        yield module.conv2d_forward(x, w, b, **options)
        yield from module.conv2d_backward(dy, x, w, **options)
        x = np.random.default_rng(pooling.seed).normal(size=pooling.x).astype(dtype)
        options = {"stride": pooling.stride, "padding": pooling.padding}
        y, argmax = module.max_pool2d_forward(x, pooling.size, **options)
        yield from (y, argmax.astype(dtype), module.max_pool2d_backward(y, argmax, x.shape, pooling.size, **options))
        x, gamma, beta, dy, mean, var = norm_case(norm, dtype)
        y, context = module.batch_norm_forward(x, gamma, beta, mean, var, train=norm.train)
        yield from (y, mean, var, *module.batch_norm_backward(dy, context))

    same(list(results(kernels)), list(results(functional)), dtype)


@pytest.mark.parametrize("limit", [1, 3000])
@pytest.mark.parametrize("w", [(3, 2, 3, 4), (5, 3, 4, 3)], ids=["whole patches", "their rows"])
def test_images_are_laid_out_in_blocks_of_any_size_with_the_same_result(monkeypatch, limit, w):
    case = SimpleNamespace(x=(5, 6, 5, w[2]), w=w, stride=1, padding=1, bias=True, seed=0)
    x, w, b, dy = conv_operands(case, np.float64)

    def results():
        y = functional.conv2d_forward(x, w, b, padding=1)
        return [y, *functional.conv2d_backward(dy, x, w, padding=1)]

    whole = results()
    monkeypatch.setattr(conv, "PATCH_BYTES", limit)
    same(results(), whole, np.float64)


@both
@pytest.mark.parametrize(("c", "f", "stride"), [(3, 4, 2), (130, 127, 2), (9, 2, 1)])
def test_arrays_that_are_not_contiguous_and_empty_batches_are_as_good(module, c, f, stride):
    case = SimpleNamespace(x=(4, 6, 5, c), w=(3, 3, c, f), stride=stride, padding=1, bias=True, seed=0)
    x, w, b, dy = conv_operands(case, np.float64)
    views, options = [np.asfortranarray(array) for array in (x, w, dy)], {"stride": stride, "padding": 1}
    same(
        [module.conv2d_forward(views[0], views[1], b, **options),
         *module.conv2d_backward(views[2], views[0], views[1], **options)],
        [module.conv2d_forward(x, w, b, **options), *module.conv2d_backward(dy, x, w, **options)],
        np.float64,
    )  # fmt: skip
    y = module.conv2d_forward(x[:0], w, b, **options)
    assert y.shape == (0, *dy.shape[1:])
    dx, dw, db = module.conv2d_backward(y, x[:0], w, **options)
    assert dx.shape == (0, *x.shape[1:])
    assert not dw.any()
    assert not db.any()
    y, argmax = module.max_pool2d_forward(x[:0], 2)
    assert module.max_pool2d_backward(y, argmax, x[:0].shape, 2).shape == (0, *x.shape[1:])


@both
@pytest.mark.parametrize("buffers", DTYPES)
def test_running_statistics_keep_their_dtype_whatever_x_has(module, buffers):
    for dtype in DTYPES:
        x, gamma, beta, _, mean, var = norm_case(SimpleNamespace(x=(4, 3, 2, 5), seed=1), dtype)
        mean, var = mean.astype(buffers), var.astype(buffers)
        before = mean.copy()
        y, _ = module.batch_norm_forward(x, gamma, beta, mean, var)
        assert (y.dtype, mean.dtype, var.dtype) == (dtype, buffers, buffers)
        assert np.abs(mean - (0.9 * before + 0.1 * x.mean((0, 1, 2)))).max() < 1e-6
        frozen(mean, var)  # not trained, they are only read
        assert module.batch_norm_forward(x, gamma, beta, mean, var, train=False)[0].dtype == dtype


def ones(*shape):
    return np.ones(shape)


def norm(f, x, gamma=None, beta=None, mean=None, var=None, *, train=True):
    rest = (ones(x.shape[-1]) if a is None else a for a in (gamma, beta, mean, var))
    return f.batch_norm_forward(x, *rest, train=train)


X, W = ones(2, 4, 4, 3), ones(3, 3, 3, 5)
WRONG = [
    (lambda f: f.conv2d_forward(ones(4, 4, 3), W), "x has shape (4, 4, 3), expected images (N, H, W, C)"),
    (lambda f: f.conv2d_forward(X, ones(3, 5)), "w has shape (3, 5), expected (kernel height, kernel width, in, out)"),
    (lambda f: f.conv2d_forward(X, ones(0, 3, 3, 5)), "w has shape (0, 3, 3, 5), expected"),
    (lambda f: f.conv2d_forward(X, ones(3, 3, 1, 5)), "conv2d: x has 3 channels, w expects 1"),
    (lambda f: f.conv2d_forward(X, W, ones(3)), "b has shape (3,), w of shape (3, 3, 3, 5) expects (5,)"),
    (lambda f: f.conv2d_forward(ones(2, 3, 8, 8), W), "looks like NCHW; images are NHWC: x.transpose(0, 2, 3, 1)"),
    (lambda f: f.conv2d_forward(X, W, stride=0), "conv2d: stride is 1 or more, got 0"),
    (lambda f: f.conv2d_forward(X, W, stride=-2), "conv2d: stride is 1 or more, got -2"),
    (lambda f: f.conv2d_forward(X, W, padding=-1), "conv2d: padding is 0 or more, got -1"),
    (lambda f: f.conv2d_forward(X, ones(7, 7, 3, 5), padding=1), "window of 7x7 does not fit the padded image of 6x6"),
    (lambda f: f.conv2d_backward(ones(2, 4, 4, 5), X, W), "dy has shape (2, 4, 4, 5), expected (2, 2, 2, 5)"),
    (lambda f: f.conv2d_backward(ones(2, 2, 2, 5), X, ones(3, 3, 2, 5)), "x has 3 channels, w expects 2"),
    (lambda f: f.max_pool2d_forward(ones(4, 4), 2), "max_pool2d: x has shape (4, 4), expected images"),
    (lambda f: f.max_pool2d_forward(X, 0), "max_pool2d: size is 1 or more, got 0"),
    (lambda f: f.max_pool2d_forward(X, 2, stride=0), "max_pool2d: stride is 1 or more, got 0"),
    (lambda f: f.max_pool2d_forward(X, 2, padding=-1), "max_pool2d: padding is 0 or more, got -1"),
    (lambda f: f.max_pool2d_forward(X, 3, padding=2), "padding is at most half the size, 1, got 2"),
    (lambda f: f.max_pool2d_forward(X, 5), "window of 5x5 does not fit the padded image of 4x4"),
    (
        lambda f: f.max_pool2d_backward(ones(2, 3, 3, 3), np.zeros((2, 3, 3, 3), np.uint8), X.shape, 2),
        "dy has shape (2, 3, 3, 3), expected (2, 2, 2, 3)",
    ),
    (
        lambda f: f.max_pool2d_backward(ones(2, 2, 2, 3), np.zeros((2, 2, 2, 1), np.uint8), X.shape, 2),
        "argmax has shape (2, 2, 2, 1), expected (2, 2, 2, 3)",
    ),
    (lambda f: f.global_avg_pool2d_forward(ones(2, 3)), "x has shape (2, 3), expected (N, H, W, C)"),
    (lambda f: f.global_avg_pool2d_backward(ones(2, 4), X.shape), "dy has shape (2, 4), expected (2, 3)"),
    (lambda f: norm(f, ones(3)), "batch_norm: x has shape (3,), expected (N, C) or (N, H, W, C)"),
    (lambda f: norm(f, X, gamma=ones(4)), "batch_norm: gamma has shape (4,), expected (3,)"),
    (lambda f: norm(f, X, beta=ones(1, 3)), "batch_norm: beta has shape (1, 3), expected (3,)"),
    (lambda f: norm(f, X, mean=ones(2)), "batch_norm: running_mean has shape (2,), expected (3,)"),
    (lambda f: norm(f, X, var=ones(2), train=False), "batch_norm: running_var has shape (2,), expected (3,)"),
    (lambda f: norm(f, ones(1, 3)), "training needs two values a channel at least, x of shape (1, 3) has 1"),
    (lambda f: norm(f, ones(1, 1, 1, 3)), "training needs two values a channel"),
    (lambda f: f.batch_norm_backward(ones(2, 3), norm(f, X)[1]), "dy has shape (2, 3), expected (2, 4, 4, 3)"),
]


@both
@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message[:45] for _, message in WRONG])
def test_wrong_operands_are_told_in_one_line(module, call, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is checked below)
        call(module)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@both
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.conv2d_forward(X, W, stride=1.5), "conv2d: stride is an integer, got 1.5"),
        (lambda f: f.conv2d_forward(X, W, padding=(1, 1)), "conv2d: padding is an integer, got (1, 1)"),
        (lambda f: f.max_pool2d_forward(X, 2.0), "max_pool2d: size is an integer, got 2.0"),
    ],
)
def test_sizes_that_are_no_integers_are_a_type_error(module, call, message):
    with pytest.raises(TypeError) as error:
        call(module)
    assert str(error.value) == message
