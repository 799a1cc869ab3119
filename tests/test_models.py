"""The report's networks: sizes, gradients, where the loss starts, saving, and bad input."""

import numpy as np
import pytest

import nnlib
from nnlib import models
from nnlib.functional import softmax_cross_entropy
from nnlib.gradcheck import check
from nnlib.layers import BatchNorm, Conv2d, GlobalAvgPool2d, Linear, MaxPool2d, ReLU
from nnlib.network import Network, Residual, Sequential

WHOLE_NETWORK = 1e-6  # the coursework's limit

MODELS = {
    "mlp": lambda shape, classes, rng: models.mlp(shape, (24, 16), classes, dropout=0.3, batch_norm=True, rng=rng),
    "mlp_standardized": lambda shape, classes, rng: models.mlp(shape, (24,), classes, standardize=True, rng=rng),
    "small_cnn": lambda shape, classes, rng: models.small_cnn(shape, classes, rng=rng),
    "face_cnn": lambda shape, classes, rng: models.face_cnn(shape, classes, rng=rng),
} | {
    f"resnet{depth}v{version}{kind}": (
        lambda shape, classes, rng, depth=depth, version=version, kind=kind: models.resnet(
            depth, version, input_shape=shape, classes=classes, width=4, shortcut=kind != "plain", rng=rng
        )
    )
    for depth, version, kind in [
        (50, 1, ""),
        (50, 2, ""),
        (101, 1, ""),
        (101, 2, ""),
        (50, 1, "plain"),
        (50, 2, "plain"),
    ]
}


def make(name, shape=(16, 16, 2), classes=5, seed=0):
    return MODELS[name](shape, classes, np.random.default_rng(seed))


def batch(network, n=6, seed=1, classes=5):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, size=(n, *network.input_shape), dtype=np.uint8), rng.integers(0, classes, size=n)


def randomise(network, seed=3):
    """Give norms, running statistics and the small last layer ordinary values, so that no gradient vanishes."""
    rng = np.random.default_rng(seed)
    for name, array in (*network.parameters.items(), *network.buffers.items()):
        if array.ndim == 1 and not name.startswith("normalize"):
            positive = name.endswith(("weight", "var"))
            array[...] = rng.uniform(0.5, 1.5, array.shape) if positive else rng.normal(0, 0.3, array.shape)
    network.parameters["fc.weight"][...] *= 100


# ---- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        # 25 * 16 + 16, 25 * 16 * 32 + 32, 4608 * 1024 + 1024, 1024 * 7 + 7
        (lambda rng: models.small_cnn(rng=rng), 416 + 12_832 + 4_719_616 + 7_175),
        # 9 * (1 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + ... + 256 * 256), two a filter for the norms, 256 * 7 + 7
        (lambda rng: models.face_cnn(rng=rng), 9 * 130_080 + 2 * 960 + 1_799),
        (lambda rng: models.mlp((20,), (30, 10), 3, batch_norm=True, rng=rng), 630 + 60 + 310 + 20 + 33),
    ],
)
def test_parameter_counts(build, parameters):
    assert build(np.random.default_rng(0)).vector.size == parameters


@pytest.mark.parametrize(("depth", "parameters"), [(50, 25_557_032), (101, 44_549_160)])
def test_resnets_have_as_many_parameters_as_torchvisions(depth, parameters):
    network = models.resnet(depth, 1, input_shape=(32, 32, 3), classes=1000, rng=np.random.default_rng(0))
    assert network.vector.size == parameters
    names = {"conv1.weight", "bn1.bias", "layer1.0.downsample.1.weight", "layer4.2.bn3.weight", "fc.bias"}
    assert names <= set(network.parameters)
    assert {"layer1.0.downsample.1.running_mean", "layer3.5.bn1.running_var"} <= set(network.buffers)
    assert "conv1.bias" not in network.parameters


def test_resnet50_takes_the_operations_that_are_known():
    network = models.resnet(50, 1, input_shape=(224, 224, 3), classes=1000, rng=np.random.default_rng(0))
    assert network.summary().splitlines()[-1].split() == ["total", "25,557,032", "4,089,184,256"]


def test_the_small_cnn_has_the_shapes_of_the_brief():
    network = models.small_cnn(rng=np.random.default_rng(0))
    shapes = {name: y.shape[1:] for name, y in network.activations(np.zeros((1, 48, 48, 1), np.uint8)).items()}
    assert " ".join(shapes) == "normalize conv1 relu1 pool1 conv2 relu2 pool2 dropout1 fc1 relu3 dropout2 fc"
    assert shapes["conv1"] == (48, 48, 16)
    assert shapes["pool1"] == (24, 24, 16)
    assert shapes["conv2"] == (24, 24, 32)
    assert shapes["pool2"] == (12, 12, 32)
    assert shapes["fc1"] == (1024,)
    assert network.summary().splitlines()[-1].split() == ["total", "4,740,039", "13,020,160"]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", [48, 33, 7, 1])
def test_stages_halve_the_image(version, size):
    network = models.resnet(50, version, input_shape=(size, size, 1), width=2, rng=np.random.default_rng(0))
    activations = network.activations(np.zeros((2, size, size, 1), np.uint8))
    for divisor, filters, name in [(4, 2, "maxpool"), (4, 8, "layer1.2"), (8, 16, "layer2.3"), (32, 64, "layer4.2")]:
        side = -(-size // divisor)
        assert activations[name].shape == (2, side, side, filters)
    assert activations["fc"].shape == (2, 7)


@pytest.mark.parametrize("name", MODELS)
def test_summary_lists_every_parameter(name):
    network = make(name)
    *rows, total = network.summary().splitlines()[1:]
    assert total.split()[1] == f"{network.vector.size:,}"
    titles = {row.split()[0] for row in rows}
    assert {parameter.rpartition(".")[0] for parameter in network.parameters} <= titles
    assert any("(7, 7, 5)" in row or "(5,)" in row for row in rows)


# ---- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_starts_at_the_logarithm_of_the_number_of_classes(name):
    network = make(name, (24, 24, 1), 7)
    x, labels = batch(network, 32, classes=7)
    network.fit_normalization(x)
    loss, _ = network.loss(x, labels, rng=np.random.default_rng(0))
    assert loss == pytest.approx(np.log(7), rel=0.05)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", [name for name in MODELS if "101" not in name])
def test_gradients(monkeypatch, name, train):
    # A block of each kind: at full depth a step of any size that float64 can tell crosses some rectifier's corner.
    # The gradients of all 50 and 101 layers are held to PyTorch's in test_torchvision.
    monkeypatch.setitem(models.STAGES, 50, (2, 2))
    network = make(name, (8, 8, 2) if name == "face_cnn" else (16, 16, 2))
    x, labels = batch(network)
    network.fit_normalization(x)
    randomise(network)
    network = network.astype(np.float64)

    def loss():
        logits = network.forward(x, train=train, rng=np.random.default_rng(5))
        return softmax_cross_entropy(logits, labels)[0] + network.penalty(1e-3)

    gradients = network.loss(x, labels, train=train, l2=1e-3, rng=np.random.default_rng(5))[1]
    sample, rng = 1 if name == "face_cnn" else 2, np.random.default_rng(1)
    for one in check(loss, network.parameters, gradients, step=1e-6, sample=sample, rng=rng):
        # Beside the coursework's limit for a whole network, room for the rounding of a loss near 2 over 1e-6.
        np.testing.assert_allclose(one.numerical, one.analytic, rtol=WHOLE_NETWORK, atol=1e-8, err_msg=one.name)


@pytest.mark.parametrize("name", MODELS)
def test_save_and_load_keep_running_statistics_too(tmp_path, name):
    network = make(name)
    x, labels = batch(network)
    network.fit_normalization(x)
    randomise(network)
    before = {key: buffer.copy() for key, buffer in network.buffers.items()}
    network.loss(x, labels, rng=np.random.default_rng(0))
    moved = [key for key in before if not np.array_equal(before[key], network.buffers[key])]
    assert set(moved) == {key for key in before if "running" in key}
    network.save(tmp_path / "net.safetensors")
    loaded = nnlib.load(tmp_path / "net.safetensors")
    for mapping, copy in ((network.parameters, loaded.parameters), (network.buffers, loaded.buffers)):
        assert list(mapping) == list(copy)
        for key, array in mapping.items():
            np.testing.assert_array_equal(copy[key], array, err_msg=key)
    np.testing.assert_array_equal(loaded.forward(x), network.forward(x))
    slopes, expected = loaded.loss(x, labels, train=False)[1], network.loss(x, labels, train=False)[1]
    assert all(np.array_equal(slopes[key], expected[key]) for key in network.parameters)


def test_layers_keep_their_options(tmp_path):
    weight = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)
    stack = {"a": Conv2d(weight, stride=2, padding=1), "b": Conv2d(weight[:1, :1, :, :2], bias=False)}
    for name, options in {"a": {"stride": 2, "padding": 1, "bias": True}, "b": {"bias": False}}.items():
        assert stack[name].config().items() >= options.items()
    fc = Linear(np.ones((8, 3), np.float32))
    layers = {"b": stack["b"], "a": stack["a"], "pool": MaxPool2d(3, stride=1, padding=1)}
    network = Network(Sequential({**layers, "avgpool": GlobalAvgPool2d(), "fc": fc}), (7, 6, 2))
    fc.params["weight"] = network.parameters["fc.weight"]
    network.save(tmp_path / "net.safetensors")
    loaded = nnlib.load(tmp_path / "net.safetensors")
    assert loaded.layers.config() == network.layers.config()


@pytest.mark.parametrize("version", [1, 2])
def test_zero_init_makes_each_block_its_shortcut_and_still_learns(monkeypatch, version):
    monkeypatch.setitem(models.STAGES, 50, (2, 2))
    options = {"input_shape": (16, 16, 1), "width": 4, "zero_init": True}
    network = models.resnet(50, version, **options, rng=np.random.default_rng(0))
    x, labels = batch(network)
    network.fit_normalization(x)
    network.parameters["fc.weight"][...] *= 100
    activations = network.activations(x)
    np.testing.assert_array_equal(activations["layer1.1"], activations["layer1.0"])
    velocity = {name: np.zeros_like(array) for name, array in network.parameters.items()}
    start = {name: array.copy() for name, array in network.parameters.items()}
    for _ in range(3):
        nnlib.SGD().update(network.parameters, network.loss(x, labels)[1], velocity, rate=0.1, momentum=0.9)
    stuck = [name for name, array in network.parameters.items() if np.array_equal(array, start[name])]
    assert stuck == []


def test_the_plain_network_has_no_shortcuts():
    for version in (1, 2):
        network = models.resnet(50, version, width=2, shortcut=False, rng=np.random.default_rng(0))
        assert not any(isinstance(layer, Residual) for _, layer in network.layers.named_layers())
        assert not any("downsample" in name for name in network.parameters)
        assert sum(isinstance(layer, Conv2d) for _, layer in network.layers.named_layers()) == 49


@pytest.mark.parametrize("relu", [False, True])
def test_a_residual_block_may_end_in_a_rectifier(relu):
    weight = np.array([[1.0, -3.0], [2.0, 0.5]])
    block = Residual(Sequential({"fc": Linear(weight)}), relu=relu)
    x, dy = np.array([[1.0, 2.0], [-1.0, 0.5]]), np.array([[1.0, 10.0], [100.0, 1000.0]])
    total = x @ weight + x
    y, context = block.forward(x)
    np.testing.assert_allclose(y, np.maximum(total, 0) if relu else total)
    np.testing.assert_allclose(block.infer(x), y)
    *_, (_, _, traced) = block.trace(x)
    np.testing.assert_allclose(traced, y)
    slope = dy * (total > 0) if relu else dy
    before = dy.copy()
    dx, gradients = block.backward(dy, context)
    np.testing.assert_allclose(dx, slope @ weight.T + slope)
    np.testing.assert_allclose(gradients["fc.weight"], x.T @ slope)
    np.testing.assert_array_equal(dy, before)


@pytest.mark.parametrize(
    "layer", [Conv2d(np.ones((3, 3, 2, 2), np.float32)), MaxPool2d(2), GlobalAvgPool2d(), BatchNorm(2), ReLU()]
)
def test_layers_leave_out_the_input_gradient_when_it_is_not_wanted(layer):
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype(np.float32)
    y, context = layer.forward(x, train=True)
    dx, gradients = layer.backward(np.ones_like(y), context)
    nothing, same = layer.backward(np.ones_like(y), context, input_grad=False)
    assert dx.shape == x.shape
    assert dx.dtype == np.float32
    assert nothing is None
    assert gradients.keys() == same.keys() == layer.params.keys()
    assert all(np.array_equal(gradients[name], same[name]) for name in gradients)


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda rng: models.small_cnn((3, 48, 1), rng=rng), "small_cnn: expected images of at least 4x4"),
        (lambda rng: models.small_cnn((48, 48), rng=rng), "small_cnn: expected input_shape"),
        (lambda rng: models.small_cnn(classes=0, rng=rng), "classes 0"),
        (lambda rng: models.small_cnn(dropout=1.0, rng=rng), "probability to drop"),
        (lambda rng: models.face_cnn((48, 7, 1), rng=rng), "face_cnn: expected images of at least 8x8"),
        (lambda rng: models.resnet(18, 1, rng=rng), "expected depth 50 or 101 .* got depth 18"),
        (lambda rng: models.resnet(50, 3, rng=rng), "got depth 50, version 3"),
        (lambda rng: models.resnet(50, 1, width=0, rng=rng), "width 0"),
        (lambda rng: models.resnet(50, 2, input_shape=(0, 48, 1), rng=rng), "sizes of at least 1"),
        (lambda rng: models.resnet(50, 1, shortcut=False, zero_init=True, rng=rng), "zero_init needs shortcuts"),
    ],
)
def test_impossible_networks_are_refused_in_one_line(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build(np.random.default_rng(0))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("use", ["forward", "predict", "fit_normalization", "loss"])
def test_values_that_are_not_finite_are_told_by_row(use, value):
    network = make("face_cnn")
    x = np.zeros((5, *network.input_shape), np.float32)
    x[3, 2, 1, 0] = value
    arguments = (np.zeros(5, int),) if use == "loss" else ()
    with pytest.raises(ValueError, match="row 3 of x holds NaN or infinity"):
        getattr(network, use)(x, *arguments)


@pytest.mark.parametrize(("kind", "value"), [(np.float16, 6e4), (np.float32, 1e20)])
def test_values_whose_squares_overflow_are_finite(kind, value):
    network = make("face_cnn")
    assert np.isfinite(network.forward(np.full((2, *network.input_shape), value, kind))).all()


def test_channels_first_by_mistake_is_named():
    network = make("face_cnn")
    x = np.zeros((5, 2, 16, 16), np.uint8)
    with pytest.raises(ValueError, match=r"channels come first \(NCHW\).* give x\.transpose\(0, 2, 3, 1\)"):
        network.forward(x)
    assert network.forward(x.transpose(0, 2, 3, 1)).shape == (5, 5)
    with pytest.raises(ValueError, match="images are NHWC"):
        network.forward(np.zeros((5, 3, 16, 16), np.uint8))


def test_images_in_any_memory_order_give_the_same():
    network = make("resnet50v1")
    x, _ = batch(network)
    turned = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(network.forward(turned), network.forward(x))
