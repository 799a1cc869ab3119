"""Layers put together: gradients of the whole, names and packing, saving, and bad input."""

import json

import numpy as np
import pytest
import safetensors.numpy

import nnlib
from nnlib import checkpoint, initialization, models
from nnlib.functional import softmax_cross_entropy
from nnlib.gradcheck import check
from nnlib.layers import Conv2d, Dropout, Layer, Linear, MaxPool2d, Normalize, ReLU, Standardize
from nnlib.network import Network, Residual, Sequential

WHOLE_NETWORK = 1e-6  # the coursework's limit


def small_net(seed=0, **options):
    return models.mlp((4, 4, 3), (12, 8), 5, rng=np.random.default_rng(seed), **options)


def batch(n=6, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, size=(n, 4, 4, 3), dtype=np.uint8), rng.integers(0, 5, size=n)


def assert_gradients_hold(network, x, labels, **options):
    def loss():
        return network.loss(x, labels, rng=np.random.default_rng(5), **options)[0]

    gradients = network.loss(x, labels, rng=np.random.default_rng(5), **options)[1]
    assert list(gradients) == list(network.parameters) or set(gradients) == set(network.parameters)
    for one in check(loss, network.parameters, gradients):
        assert one.relative_error <= WHOLE_NETWORK, one.name


@pytest.mark.parametrize("options", [{}, {"l2": 0.3}, {"label_smoothing": 0.2}, {"train": False}])
def test_gradient_of_the_whole_network(options):
    network = small_net(dropout=0.4)
    x, labels = batch()
    network.fit_normalization(x)
    # Weights of ordinary size: the small last layer would make most gradients vanish.
    network.parameters["fc.weight"][...] *= 100
    assert_gradients_hold(network.astype(np.float64), x, labels, **options)


@pytest.mark.parametrize("downsample", [False, True])
def test_gradient_through_residual_blocks(downsample):
    rng = np.random.default_rng(0)

    def linear(d, m):
        return Linear(initialization.xavier((d, m), rng))

    width = 7 if downsample else 6
    body = Sequential({"fc1": linear(6, 9), "relu": ReLU(), "fc2": linear(9, width)})
    block = Residual(body, linear(6, width) if downsample else None)
    network = Network(Sequential({"stem": linear(4, 6), "block": block, "fc": linear(width, 3)}), (4,))
    names = {"block.fc1.weight", "block.fc2.bias"} | ({"block.downsample.weight"} if downsample else set())
    assert names <= set(network.parameters)
    x, labels = rng.normal(size=(5, 4)), np.array([0, 1, 2, 0, 1])
    assert_gradients_hold(network.astype(np.float64), x, labels)
    y = network.activations(x)["block"]
    np.testing.assert_allclose(network.layers.layers["fc"].infer(y), network.forward(x))


def test_a_layer_that_stands_in_two_places_gets_both_gradients():
    rng = np.random.default_rng(0)
    shared = Linear(initialization.xavier((4, 4), rng))
    layers = {"a": shared, "relu": ReLU(), "b": shared, "fc": Linear(initialization.xavier((4, 3), rng))}
    network = Network(Sequential(layers), (4,))
    assert set(network.parameters) == {"a.weight", "a.bias", "fc.weight", "fc.bias"}
    assert_gradients_hold(network.astype(np.float64), rng.normal(size=(5, 4)), np.array([0, 1, 2, 0, 1]))


def test_an_untrained_network_gives_every_class_the_same_probability():
    rng = np.random.default_rng(0)
    network = models.mlp((32, 32, 3), (1024, 512), 10, rng=rng)
    x = rng.integers(0, 256, size=(200, 32, 32, 3), dtype=np.uint8)
    network.fit_normalization(x)
    loss, _ = network.loss(x, rng.integers(0, 10, size=200))
    assert loss == pytest.approx(np.log(10), rel=0.02)


def test_parameters_are_views_of_one_vector():
    network = small_net()
    assert network.vector.size == sum(p.size for p in network.parameters.values())
    network.vector[...] = 0
    assert not network.parameters["fc1.weight"].any()
    network.parameters["fc.bias"][...] = 1
    assert network.vector.sum() == 5
    with pytest.raises(TypeError):
        network.parameters["fc.bias"] = np.zeros(5)


def test_normalization_standardises_each_channel_and_is_saved(tmp_path):
    network = small_net()
    x, _ = batch(500)
    x[..., 1] = 7  # a constant channel must not divide by zero
    network.fit_normalization(x)
    y = network.activations(x)["normalize"]
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(axis=(0, 1, 2)), [1, 0, 1], atol=1e-4)
    network.save(tmp_path / "net.safetensors")
    assert (nnlib.load(tmp_path / "net.safetensors").forward(x) == network.forward(x)).all()


def test_the_loss_is_cross_entropy_plus_penalty_over_weights_only():
    network = small_net()
    x, labels = batch()
    weights = [p for name, p in network.parameters.items() if name.endswith("weight")]
    network.parameters["fc1.bias"][...] = 100.0
    data_loss = softmax_cross_entropy(network.forward(x), labels)[0]
    penalty = 0.5 * 0.1 * sum(float((w.astype(np.float64) ** 2).sum()) for w in weights)
    assert network.loss(x, labels, l2=0.1)[0] == pytest.approx(data_loss + penalty, rel=1e-5)


def test_results_that_are_kept_are_never_overwritten():
    network = small_net(dropout=0.5)
    x, labels = batch()
    first = network.loss(x, labels, rng=np.random.default_rng(0))
    copies = {name: gradient.copy() for name, gradient in first[1].items()}
    network.loss(x[::-1], labels, rng=np.random.default_rng(1))
    assert all((first[1][name] == copies[name]).all() for name in copies)


def test_prediction_in_parts_equals_prediction_at_once():
    network = small_net()
    x, _ = batch(1201)
    np.testing.assert_allclose(network.predict_proba(x)[::7], network.predict_proba(x[::7]), rtol=1e-5)
    assert (network.predict(x) == network.predict_proba(x).argmax(axis=1)).all()
    np.testing.assert_allclose(network.predict_proba(x).sum(axis=1), 1, rtol=1e-5)


class Counter(Layer):
    """Hands on its input and notes how many there are."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def infer(self, x):
        self.seen.append(len(x))
        return x


def test_images_pass_convolutions_in_small_parts_and_linear_layers_in_large_ones():
    rng = np.random.default_rng(0)
    images, features = Counter(), Counter()
    layers = {"images": images, "conv": Conv2d(rng.normal(size=(3, 3, 1, 2)), padding=1), "pool": MaxPool2d(2)}
    layers |= {"features": features, "fc": Linear(rng.normal(size=(8, 3)))}
    network = Network(Sequential(layers), (4, 4, 1))
    x = rng.integers(0, 256, size=(510, 4, 4, 1), dtype=np.uint8)
    logits = network.forward(x)
    assert max(images.seen) == 64
    assert features.seen == [500, 10]
    np.testing.assert_allclose(logits, network.layers.infer(x), rtol=1e-10)


def test_summary_counts_parameters_and_operations():
    lines = models.mlp((32, 32, 3), (1024, 512), 10, rng=np.random.default_rng(0)).summary().splitlines()
    assert lines[1].startswith("normalize (Normalize)")
    assert lines[-1].split() == ["total", "3,676,682", "3,675,136"]


@pytest.mark.parametrize("dtype", [None, np.float16])
def test_save_and_load_keep_everything(tmp_path, dtype):
    path = tmp_path / "net.safetensors"
    network = small_net(dropout=0.3)
    network.save(path, dtype=dtype, metadata={"record": "plain"})
    loaded = nnlib.load(path)
    x, _ = batch()
    np.testing.assert_allclose(loaded.forward(x), network.forward(x), rtol=0 if dtype is None else 1e-2, atol=1e-3)
    assert loaded.metadata == {"record": "plain"}
    assert loaded.layers.layers["dropout1"].p == 0.3
    assert loaded.vector.dtype == np.float32


def test_a_layout_that_promises_more_than_the_file_holds_takes_no_memory(tmp_path):
    layers = {"kind": "Sequential", "layers": {"fc": {"kind": "Linear", "shape": [10**6, 10**7]}}}
    metadata = {"nnlib_network": json.dumps({"layers": layers, "input_shape": [10**6]})}
    checkpoint.write(tmp_path / "net.safetensors", {"fc.weight": np.ones(3)}, metadata)
    with pytest.raises(ValueError, match=r"its layers have 10,000,000,000,000 numbers, its tensors 3"):
        nnlib.load(tmp_path / "net.safetensors")


def test_broken_files_are_told_in_one_line(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(FileNotFoundError, match="found none"):
        nnlib.load(path)
    path.write_text("not a network")
    with pytest.raises(ValueError, match="expected a safetensors file"):
        nnlib.load(path)
    safetensors.numpy.save_file({"x": np.ones(3)}, path)
    with pytest.raises(ValueError, match="expected a network saved by nnlib"):
        nnlib.load(path)
    small_net().save(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="broken"):
        nnlib.load(path)
    metadata = {"nnlib_network": '{"layers": {"kind": "os.system"}, "input_shape": [3]}'}
    safetensors.numpy.save_file({"x": np.ones(3)}, path, metadata)
    with pytest.raises(ValueError, match=r"layer kind: expected one of .* got 'os.system'"):
        nnlib.load(path)


def test_tensors_that_do_not_fit_are_all_listed(tmp_path):
    path = tmp_path / "net.safetensors"
    network = small_net()
    network.save(path)
    with safetensors.safe_open(path, framework="numpy") as handle:
        metadata = handle.metadata()
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    tensors["fc.bias"] = np.zeros(4, dtype=np.float32)
    tensors["stranger"] = tensors.pop("fc1.bias")
    safetensors.numpy.save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=r"fc1\.bias is missing") as error:
        nnlib.load(path)
    assert "stranger is unexpected" in str(error.value)
    assert "fc.bias has shape (4,), expected (5,)" in str(error.value)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 3, 4, 4)), ValueError, "NHWC"),
        (np.zeros((4, 4, 3)), ValueError, r"expected \(N, 4, 4, 3\)"),
        (np.array([["a"]]), TypeError, "expected numbers"),
    ],
)
def test_inputs_that_do_not_fit(x, error, message):
    with pytest.raises(error, match=message):
        small_net().forward(x)


def test_impossible_networks():
    with pytest.raises(ValueError, match="sizes of at least 1"):
        models.mlp((4,), (0,), 3, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="probability to drop"):
        Dropout(1.0)
    body = Sequential({"fc": Linear(np.zeros((4, 5), dtype=np.float32))})
    with pytest.raises(ValueError, match="give downsample"):
        Residual(body).infer(np.zeros((1, 4), dtype=np.float32))


def test_initial_deviations_are_those_of_the_papers():
    rng = np.random.default_rng(0)
    shape = (300, 200)
    assert initialization.he(shape, rng).std() == pytest.approx(np.sqrt(2 / 300), rel=0.02)
    assert initialization.xavier(shape, rng).std() == pytest.approx(np.sqrt(2 / 500), rel=0.02)
    assert initialization.xavier((3, 3, 30, 20), rng).std() == pytest.approx(np.sqrt(2 / (9 * 50)), rel=0.03)
    assert initialization.small(shape, rng).std() < 0.001


def test_normalize_gradient():
    layer = Normalize(3)
    layer.buffers = {"mean": np.array([1.0, 2, 3]), "deviation": np.array([2.0, 4, 8])}
    dx, gradients = layer.backward(np.ones((2, 3)), None)
    np.testing.assert_array_equal(dx, [[0.5, 0.25, 0.125]] * 2)
    assert gradients == {}


def test_standardize_gives_every_image_mean_0_and_deviation_1_whatever_its_brightness_and_contrast():
    rng = np.random.default_rng(0)
    images = rng.integers(20, 60, size=(5, 8, 8, 3), dtype=np.uint8)
    y = Standardize().infer(images)
    assert (y.dtype, y.shape) == (np.float32, images.shape)
    np.testing.assert_allclose(y.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=(1, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_allclose(Standardize().infer(3 * images + 50), y, atol=1e-5)
    for dtype in (np.float32, np.float64):
        floats = Standardize().infer(images.astype(dtype))
        assert floats.dtype == dtype
        np.testing.assert_allclose(floats, y, atol=1e-5)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_standardize_turns_a_constant_image_into_zeros(value, dtype):
    images = np.full((2, 300, 300, 3), value if dtype == np.uint8 else value / 255, dtype=dtype)
    np.testing.assert_allclose(Standardize().infer(images), 0, atol=0 if dtype != np.float64 else 1e-12)


def test_gradient_of_standardize():
    rng = np.random.default_rng(0)
    layer, x, weights = Standardize(), rng.normal(size=(3, 4, 2, 2)), rng.normal(size=(3, 4, 2, 2))
    x[0] *= 1e-3  # where eps counts

    def loss():
        return float((weights * layer.infer(x)).sum())

    _, context = layer.forward(x)
    (result,) = check(loss, {"x": x}, {"x": layer.backward(weights, context)[0]}, step=1e-6)
    assert result.relative_error <= WHOLE_NETWORK
    assert layer.backward(weights, context, input_grad=False) == (None, {})


def test_standardize_is_torch_s_layer_norm(torch):
    rng = np.random.default_rng(0)
    x, dy = 7 * rng.normal(size=(5, 4, 3, 2)) + 3, rng.normal(size=(5, 4, 3, 2))
    layer = Standardize()
    y, context = layer.forward(x)
    theirs = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.layer_norm(theirs, x.shape[1:], eps=layer.eps)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(layer.backward(dy, context)[0], theirs.grad.numpy(), atol=1e-12)


def test_probabilities_of_mirrored_images_are_the_mean_of_both_sides():
    network = small_net(standardize=True)
    network.parameters["fc.weight"][...] *= 1000
    x, _ = batch(20)
    assert network.predict_proba(x[:0], mirrored=True).shape == (0, 5)
    both = network.predict_proba(x, mirrored=True)
    one, other = network.predict_proba(x), network.predict_proba(x[:, :, ::-1])
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-5)
    np.testing.assert_allclose(network.predict_proba(x[:, :, ::-1], mirrored=True), both, rtol=1e-5)
    np.testing.assert_allclose(network.predict_proba(x.astype(np.float64), mirrored=True), both, rtol=1e-4)
    features = models.mlp((20,), (3,), 2, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"only images .* can be mirrored; this network takes \(20,\)"):
        features.predict_proba(np.zeros((2, 20)), mirrored=True)
