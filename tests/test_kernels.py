"""Compiled kernels: like their functions in every shape, the same whatever the threads, and dispensable."""

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nnlib import SGD, functional, kernels, memory, models
from nnlib.layers import BatchNorm, Conv2d, Linear, MaxPool2d, ReLU
from nnlib.network import Network, Residual, Sequential
from nnlib.state import TrainingState

numba = pytest.importorskip("numba")
ROOT = Path(__file__).parents[1]


def python(code, cwd=ROOT, **environment):
    """Run code in a process of its own and return what it prints."""
    environment = {key: value for key, value in {**os.environ, **environment}.items() if value is not None}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr


def close(got, wanted, dtype):
    limit = 2e-5 if dtype == np.float32 else 1e-10
    assert got.dtype == dtype
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max(initial=0) <= limit * max(1, np.abs(wanted).max(initial=0))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 70), d=st.integers(1, 300), m=st.integers(1, 200), double=st.booleans(), seed=st.integers(0, 99)
)
@example(n=270, d=1037, m=70, double=False, seed=0)  # far rows, gathered; more terms than a panel is high
@example(n=530, d=517, m=530, double=True, seed=0)  # more rows than a block, more columns than a group of panels
@example(n=12, d=1037, m=331, double=False, seed=0)  # few rows, columns that fill no vector
def test_linear_layers_of_every_size_equal_numpy(n, d, m, double, seed):
    dtype = np.float64 if double else np.float32
    rng = np.random.default_rng(seed)
    x, w, b, dy = (rng.normal(size=shape).astype(dtype) for shape in ((n, d), (d, m), (m,), (n, m)))
    close(kernels.linear_forward(x, w, b), x.astype(float) @ w + b, dtype)
    dx, dw, db = kernels.linear_backward(dy, x, w)
    close(dx, dy.astype(float) @ w.T, dtype)
    close(dw, x.T.astype(float) @ dy, dtype)
    close(db, dy.sum(axis=0, dtype=float), dtype)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(shape=st.lists(st.integers(1, 60), min_size=1, max_size=3), nesterov=st.booleans(), seed=st.integers(0, 99))
@example(shape=[70, 1000], nesterov=False, seed=0)  # shared out by columns, the last thread's fill no vector
@example(shape=[2, 3, 31, 257], nesterov=True, seed=0)
def test_the_update_and_the_penalty_equal_numpy(shape, nesterov, seed):
    rng = np.random.default_rng(seed)
    ours = [rng.normal(size=shape).astype(np.float32) for _ in range(3)]
    theirs = [array.copy() for array in ours]
    assert kernels.sum_of_squares(ours[0]) == pytest.approx(functional.sum_of_squares(theirs[0]), rel=1e-5)
    for module, (w, g, v) in ((kernels, ours), (functional, theirs)):
        module.add_decay(g, w, 0.3)
        module.momentum_step(w, g, v, rate=0.1, momentum=0.9, nesterov=nesterov)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_velocity_of_a_dead_unit_becomes_zero_and_loses_no_precision_before(dtype, nesterov):
    w, g, v = np.ones(100, dtype), np.zeros(100, dtype), np.full(100, 1e-3, dtype)
    tiny = np.finfo(dtype).tiny
    for _ in range(20_000):
        before = v.copy()
        kernels.momentum_step(w, g, v, rate=0.1, momentum=0.9, nesterov=nesterov)
        assert (v >= tiny).all() or (v == 0).all()
        if not v.any():
            break
    assert not v.any()
    assert (before * 0.9 < 1.01 * tiny).all()


@pytest.mark.parametrize("size", [10, 100_000])
def test_elementwise_twins_equal_their_functions(size):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, size)).astype(np.float32)
    x[3] = np.nan
    for module in (functional, kernels):
        y = module.relu_forward(x)
        assert np.isnan(y[3])
        dropped, mask = module.dropout_forward(dy, 0.3, np.random.default_rng(1))
        results = y, module.relu_backward(dy, x), dropped, mask, module.dropout_backward(dy, mask, 0.3)
        if module is functional:
            expected = results
    for a, b in zip(results, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (40, 32, 32, 3), (3, 48, 48, 1), (6, 11), (0, 4, 4, 3)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_normalizing_equals_its_function_in_every_precision(shape, kind):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, size=shape).astype(kind)
    for dtype in (np.float32, np.float64):
        mean, deviation = (rng.uniform(1, 200, shape[-1]).astype(dtype) for _ in range(2))
        for images in (x, x[::-1]):
            y = kernels.normalize(images, mean, deviation)
            assert y.dtype == dtype
            np.testing.assert_array_equal(y, functional.normalize(images, mean, deviation))
            np.testing.assert_allclose(y, (images - mean.astype(float)) / deviation, rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(0, 9000) | st.integers(32_000, 100_000),
    before=st.integers(0, 3),
    p=st.sampled_from([0.0, 0.1, 0.5, 0.7]),
    kind=st.sampled_from([np.random.PCG64] * 3 + [np.random.MT19937, np.random.PCG64DXSM]),
    seed=st.integers(0, 2**40),
)
@example(size=8193, before=1, p=0.5, kind=np.random.PCG64, seed=0)  # half of 64 bits left over, and an odd end
@example(size=100_000, before=1, p=0.5, kind=np.random.PCG64, seed=0)  # and several threads
def test_dropout_draws_what_the_generator_would_and_leaves_it_there(size, before, p, kind, seed):
    x = np.random.default_rng(1).normal(size=size).astype(np.float32)
    results, states = [], []
    for module in (functional, kernels):
        rng = np.random.Generator(kind(seed))
        rng.random(before, dtype=np.float32)
        results.append([array for _ in range(2) for array in module.dropout_forward(x, p, rng)])
        states.append((rng.bit_generator.state, rng.random()))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_equal(*states)


def test_dropout_draws_the_same_where_the_state_was_set_by_hand():
    masks = []
    for module in (functional, kernels):
        rng = np.random.default_rng(0)
        rng.bit_generator.state = {**rng.bit_generator.state, "has_uint32": 1, "uinteger": 5}
        masks.append(module.dropout_forward(np.ones(100, np.float32), 0.5, rng)[1])
    np.testing.assert_array_equal(*masks)


# ---- chains --------------------------------------------------------------------------------------------------------


def stack(rng):
    """Every pattern that runs as a chain, in a residual block with and without a layer on the shortcut too."""

    def weight(*shape):
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)

    def conv(size, c, f, **options):
        return Conv2d(weight(size, size, c, f), **options)

    identity = Sequential(
        {
            "conv1": conv(1, 6, 5, bias=False), "bn1": BatchNorm(5), "relu1": ReLU(),
            "conv2": conv(3, 5, 6, padding=1, bias=False), "bn2": BatchNorm(6),
        }
    )  # fmt: skip
    before = Sequential({"bn": BatchNorm(6), "relu": ReLU(), "conv": conv(3, 6, 6, padding=1)})
    down = Sequential({"0": conv(1, 6, 8, stride=2, bias=False), "1": BatchNorm(8)})
    narrower = Sequential({"conv": conv(3, 6, 8, stride=2, padding=1)})
    layers = {
        "a": conv(3, 2, 6, padding=1), "relu": ReLU(), "pool": MaxPool2d(2), "b": Residual(identity, relu=True),
        "c": Residual(before), "d": Residual(narrower, down, relu=True), "e": BatchNorm(8), "f": ReLU(),
        "fc1": Linear(weight(8 * 2 * 2, 9)), "bn": BatchNorm(9), "relu1": ReLU(),
        "fc2": Linear(weight(9, 7)), "relu2": ReLU(), "fc": Linear(weight(7, 4)),
    }  # fmt: skip
    return Network(Sequential(layers), (8, 8, 2))


def layer_by_layer(network, monkeypatch):
    """The same network without chains, on NumPy."""
    monkeypatch.setenv("NNLIB_KERNELS", "numpy")
    for name in functional.__all__:
        monkeypatch.setattr(kernels, name, getattr(functional, name))
    plain = network.astype(network.vector.dtype)
    rebuilt = type(network.layers).build(network.layers.config())
    plain = Network(rebuilt, network.input_shape)
    plain.vector[...] = network.vector
    for name, array in network.buffers.items():
        plain.buffers[name][...] = array
    return plain


@pytest.mark.parametrize("train", [True, False])
def test_a_chain_gives_what_its_layers_give_one_after_the_other(train, monkeypatch):
    rng = np.random.default_rng(0)
    network = stack(rng)
    for name, buffer in network.buffers.items():
        buffer[...] = rng.uniform(0.5, 1.5, size=buffer.shape)
        assert "running" in name
    x = rng.normal(size=(6, 8, 8, 2)).astype(np.float32)
    labels = rng.integers(0, 4, size=6)
    plain = layer_by_layer(network, monkeypatch)
    assert len(plain.layers.stages) > len(network.layers.stages)
    expected = plain.loss(x, labels, train=train)
    inferred = plain.forward(x)
    monkeypatch.undo()
    loss, gradients = network.loss(x, labels, train=train)
    assert loss == pytest.approx(expected[0], rel=1e-5)
    assert set(gradients) == set(expected[1])
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[1][name], rtol=1e-3, atol=2e-5, err_msg=name)
    for name, buffer in network.buffers.items():
        np.testing.assert_allclose(buffer, plain.buffers[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(network.forward(x), inferred, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("size", [(6, 8), (5, 3), (13, 8)])  # the last has more squares than filters
@pytest.mark.parametrize("following", [(), ("shift",), ("scale", "shift"), ("scale", "shift", "residual")])
def test_what_follows_a_convolution_is_the_same_in_squares(size, following, monkeypatch):
    from nnlib.kernels import convolution, winograd

    rng = np.random.default_rng(0)
    x, w, residual = (rng.normal(size=shape) for shape in ((3, *size, 8), (3, 3, 8, 24), (3, *size, 24)))
    operands = {"scale": rng.normal(size=24), "shift": rng.normal(size=24), "residual": residual}
    options = {"rectify": bool(following)} | {name: operands[name] for name in following}
    results = []
    for saved in (np.inf, -np.inf):
        monkeypatch.setattr(winograd, "SAVED", saved)
        results.append(convolution.convolve(x, w, stride=1, padding=1, **options))
        if "residual" in following:
            results.append(convolution.input_gradient(residual, w, x.shape, stride=1, padding=1, residual=x))
    for direct, squares in zip(results[: len(results) // 2], results[len(results) // 2 :], strict=True):
        close(squares, direct, np.float64)
        assert (squares != direct).any(), "one way was taken twice"


# ---- threads, repetition, what is kept -----------------------------------------------------------------------------


def test_the_number_of_threads_changes_nothing_but_rounding():
    code = """
        import numpy as np
        from nnlib import models
        rng = np.random.default_rng(0)
        network = models.resnet(50, 1, width=16, rng=rng)
        x, labels = rng.normal(size=(6, 48, 48, 1)).astype(np.float32), rng.integers(0, 7, size=6)
        loss, gradients = network.loss(x, labels)
        print(repr(loss), *(repr(float(np.abs(g).sum(dtype=float))) for g in gradients.values()))
    """
    runs = [python(code, NUMBA_NUM_THREADS=threads)[0] for threads in ("1", "2", "2")]
    assert runs[1] == runs[2]
    one, two = (np.array(run.split(), dtype=float) for run in runs[:2])
    np.testing.assert_allclose(one, two, rtol=5e-3)
    assert abs(one[0] - two[0]) < 1e-5


def train_a_little(seed, results, kept):
    rng = np.random.default_rng(seed)
    network = models.small_cnn((12, 12, 1), 3, rng=rng)
    x, labels = rng.normal(size=(8, 12, 12, 1)).astype(np.float32), rng.integers(0, 3, size=8)
    velocity = {name: np.zeros_like(array) for name, array in network.parameters.items()}
    for _ in range(6):
        loss, gradients = network.loss(x, labels, rng=rng)
        kept.append((gradients, {name: gradient.copy() for name, gradient in gradients.items()}))
        SGD().update(network.parameters, gradients, velocity, rate=0.01, momentum=0.9)
        results.append(loss)


def test_two_networks_in_two_threads_and_all_results_kept():
    alone, together, kept = [], {}, []
    for seed in (1, 2):
        train_a_little(seed, results := [], kept)
        alone.append(results)
    workers = []
    for seed in (1, 2):
        together[seed] = []
        workers.append(threading.Thread(target=train_a_little, args=(seed, together[seed], kept)))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [together[1], together[2]] == alone
    for gradients, copies in kept:
        assert all((gradients[name] == copies[name]).all() for name in copies)


def test_operands_that_are_read_only_or_strided_are_taken_and_left_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 3, 9, 9)).astype(np.float32).transpose(0, 2, 3, 1)
    w = rng.normal(size=(3, 3, 3, 40)).astype(np.float32)
    wanted = functional.conv2d_forward(x, w)
    x.flags.writeable = w.flags.writeable = False
    np.testing.assert_allclose(kernels.conv2d_forward(x, w), wanted, rtol=1e-4, atol=1e-4)
    assert not x.flags.writeable


def test_operands_of_two_precisions_are_left_to_numpy_however_they_are_named():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 5, 5, 3)).astype(np.float32), rng.normal(size=(3, 3, 3, 40)).astype(np.float32)
    b = rng.normal(size=40)
    wanted = functional.conv2d_forward(x, w, b)
    for y in (kernels.conv2d_forward(x, w, b), kernels.conv2d_forward(x, w, b=b)):
        assert y.dtype == wanted.dtype
        np.testing.assert_array_equal(y, wanted)


# ---- memory --------------------------------------------------------------------------------------------------------

STEPS = """
    import resource
    import numpy as np
    from nnlib import memory
    from nnlib.layers import Conv2d, GlobalAvgPool2d, Linear, ReLU
    from nnlib.network import Network, Sequential
    {before}
    rng = np.random.default_rng(0)
    conv = Conv2d(rng.normal(size=(3, 3, 1, 32)).astype(np.float32), padding=1)
    fc = Linear(rng.normal(size=(32, 7)).astype(np.float32))
    network = Network(Sequential({{"conv": conv, "relu": ReLU(), "pool": GlobalAvgPool2d(), "fc": fc}}), (48, 48, 1))
    x, labels = rng.normal(size=(128, 48, 48, 1)).astype(np.float32), rng.integers(0, 7, size=128)
    for step in range(6):  # the activations take 38 MB, more than malloc ever keeps by itself
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        network.loss(x, labels, rng=rng)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    print(faults)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="speaks of glibc's malloc")
@pytest.mark.parametrize("choice", ["numba", "numpy"])
def test_a_step_touches_the_pages_of_the_last(choice):
    kept, plain = (  # pages of 4 KiB: where NumPy asks for huge ones, there are few faults to begin with
        int(python(STEPS.format(before=before), NNLIB_KERNELS=choice, NUMPY_MADVISE_HUGEPAGE="0")[0])
        for before in ("pass", "memory.keep_freed_memory = lambda: False")
    )
    assert plain > 5000
    assert kept <= plain / 10


@pytest.mark.parametrize(("shape", "dtype"), [((memory.SMALL,), np.uint8), ((91, 3, 44), "f4"), ((70, 70), "f8")])
def test_large_arrays_begin_with_a_cache_line(shape, dtype):
    kept = []
    for size in range(0, 640, 16):
        kept.append(bytearray(size))  # malloc's next block begins elsewhere in a line
        array, zeros = memory.empty(shape, dtype), memory.zeros_like(np.ones(shape, dtype))
        for each, number in ((array, 1), (zeros, 0)):
            assert (each.shape, each.dtype, each.flags.carray) == (shape, dtype, True)
            assert each.ctypes.data % memory.LINE == 0
            each[...] = number
        kept += [array, zeros]
    assert all(array.all() and not zeros.any() for array, zeros in zip(kept[1::3], kept[2::3], strict=True))


def test_a_small_array_is_an_ordinary_one():
    assert memory.empty((3, 4), np.float32).base is None


def test_a_network_keeps_its_large_arrays_so():
    rng = np.random.default_rng(0)
    for filters in range(3, 7):  # their weights move what is allocated next
        network = Network(Sequential({"fc": Linear(rng.normal(size=(1024, 16 * filters)).astype(np.float32))}), (1024,))
        x, labels = rng.normal(size=(200, 1024)).astype(np.float32), rng.integers(0, 7, size=200)
        gradients = network.backpropagate(x, labels).gradients
        velocity = TrainingState.start(network, seed=0).velocity
        for array in (network.vector, gradients["fc.weight"], velocity["fc.weight"], network.forward(x)):
            assert array.ctypes.data % memory.LINE == 0


# ---- compiling, and doing without ----------------------------------------------------------------------------------

PRODUCT = """
    import sys
    import numpy as np
    import nnlib
    assert "numba" not in sys.modules
    from nnlib import kernels
    print(kernels.relu_forward(np.array([-1.0, 2.0], dtype=np.float32)), "numba" in sys.modules)
"""


def test_numba_is_imported_when_it_is_needed_and_announced_when_it_compiles(tmp_path):
    out, told = python(PRODUCT, NUMBA_CACHE_DIR=str(tmp_path))
    assert out == "[0. 2.] True\n"
    assert told == "nnlib: compiling kernels for this processor, once; this takes up to a minute\n"
    assert python(PRODUCT, NUMBA_CACHE_DIR=str(tmp_path)) == (out, "")  # a second process compiles nothing


@pytest.mark.parametrize("how", ["switched off", "not installed"])
def test_everything_works_without_numba(how):
    hide = "import sys; sys.modules['numba'] = None\nimport importlib.util as u; find = u.find_spec\n" if how else ""
    hide += "u.find_spec = lambda name, *a: None if name == 'numba' else find(name, *a)\n"
    code = textwrap.dedent(
        """
        import sys
        import numpy as np
        from nnlib import kernels, models, functional
        network = models.small_cnn((8, 8, 1), 3, rng=np.random.default_rng(0))
        network.loss(np.ones((2, 8, 8, 1), dtype=np.float32), np.array([0, 1]), rng=np.random.default_rng(0))
        print(kernels.conv2d_forward is functional.conv2d_forward, sys.modules.get("numba") is None)
        """
    )
    if how == "not installed":
        assert python(hide + code)[0] == "True True\n"
    else:
        assert python(code, NNLIB_KERNELS="numpy")[0] == "True True\n"


@pytest.mark.slow
@pytest.mark.parametrize("features", [{"avx2": True}, {}])
def test_narrower_vectors_give_the_same_products(features, tmp_path):
    """The tiles of processors with fewer and shorter registers, written for this one all the same."""
    code = f"""
        import llvmlite.binding as llvm
        kind = type(llvm.get_host_cpu_features())
        llvm.get_host_cpu_features = lambda: kind({features})
        import numpy as np
        from nnlib import functional, kernels
        from nnlib.kernels import tile, winograd
        rng = np.random.default_rng(0)
        for n, size, c, f, k in ((2, 7, 3, 5, 3), (1, 9, 16, 40, 1), (3, 5, 33, 17, 5), (9, 11, 24, 16, 3)):
            x, w = rng.normal(size=(n, size, size, c)), rng.normal(size=(k, k, c, f))
            x, w = x.astype(np.float32), w.astype(np.float32)
            y = kernels.conv2d_forward(x, w, padding=k // 2)
            pairs = [(y, functional.conv2d_forward(x, w, padding=k // 2))]
            pairs += zip(*(m.conv2d_backward(y, x, w, padding=k // 2) for m in (kernels, functional)))
            for a, b in pairs:
                assert np.abs(a - b).max() <= 2e-5 * np.abs(b).max()
        print(tile.VECTOR_BYTES, tile.ROWS, winograd.suits(w.shape, x, y, copies=2))
    """
    printed = python(code, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="2")[0]
    assert printed == ("32 6 True\n" if features else "16 4 True\n")


def test_an_unknown_choice_is_told_in_one_line():
    code = """
        from nnlib import kernels
        try:
            kernels.relu_forward
        except ValueError as error:
            print(error)
    """
    assert python(code, NNLIB_KERNELS="gpu")[0] == "NNLIB_KERNELS: expected numba or numpy, got 'gpu'\n"


def test_a_damaged_cache_is_made_anew(tmp_path):
    python(PRODUCT, NUMBA_CACHE_DIR=str(tmp_path))
    for path in tmp_path.rglob("*.nb?"):
        path.write_bytes(b"\x80garbage")
    out, told = python(PRODUCT, NUMBA_CACHE_DIR=str(tmp_path))
    assert out == "[0. 2.] True\n"
    assert all(line.startswith("nnlib: ") for line in told.splitlines())
    assert "made anew" in told
    assert python(PRODUCT, NUMBA_CACHE_DIR=str(tmp_path))[1] == ""


def test_a_cache_that_cannot_be_written_is_told_and_done_without(tmp_path):
    shutil.copytree(ROOT / "nnlib", tmp_path / "nnlib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "nnlib/kernels/__pycache__").write_text("in the way of the folder")
    nowhere = str(tmp_path / "nnlib/__init__.py/cache")  # a file is no folder, not even for root
    out, told = python(
        PRODUCT, cwd=tmp_path, NUMBA_CACHE_DIR=nowhere, XDG_CACHE_HOME=nowhere, HOME=nowhere, PYTHONPATH=str(tmp_path)
    )
    assert out == "[0. 2.] True\n"
    assert "no folder to keep compiled kernels in" in told
    assert len(told.splitlines()) == 2
    assert all(line.startswith("nnlib: ") for line in told.splitlines())
