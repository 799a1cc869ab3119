"""ResNets against a PyTorch build of torchvision's layout: logits, every gradient, training steps, running statistics.

All in float64; a difference is told relative to the largest magnitude of the array it stands in.
"""

from collections import OrderedDict

import numpy as np
import pytest
import safetensors.numpy

import nnlib
from nnlib import models
from nnlib.models import EXPANSION, STAGES

TOLERANCE = 1e-8
CLASSES = 5


def conv(nn, size, before, filters, stride=1):
    return nn.Conv2d(before, filters, size, stride=stride, padding=size // 2, bias=False)


def torch_block(nn, version, before, middle, stride):
    """Return a bottleneck block under torchvision's names; version 2 after arXiv:1603.05027, figure 4e."""
    relu, out = nn.functional.relu, EXPANSION * middle

    class Bottleneck(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = conv(nn, 1, before, middle), conv(nn, 3, middle, middle, stride)
            self.conv3 = conv(nn, 1, middle, out)
            norms = (middle, middle, out) if version == 1 else (before, middle, middle)
            self.bn1, self.bn2, self.bn3 = map(nn.BatchNorm2d, norms)
            self.downsample = None
            if stride > 1 or before != out:
                down = conv(nn, 1, before, out, stride)
                self.downsample = nn.Sequential(down, nn.BatchNorm2d(out)) if version == 1 else down

    class PostActivation(Bottleneck):
        def forward(self, x):
            y = relu(self.bn1(self.conv1(x)))
            y = relu(self.bn2(self.conv2(y)))
            y = self.bn3(self.conv3(y))
            return relu(y + (x if self.downsample is None else self.downsample(x)))

    class PreActivation(Bottleneck):
        def forward(self, x):
            first = relu(self.bn1(x))
            y = self.conv2(relu(self.bn2(self.conv1(first))))
            y = self.conv3(relu(self.bn3(y)))
            return y + (x if self.downsample is None else self.downsample(first))

    return (PostActivation, PreActivation)[version - 1]()


def torch_resnet(torch, depth, version, width, channels):
    """Return a ResNet in float64 whose every array is random, norms and running statistics too."""
    nn = torch.nn
    torch.manual_seed(0)
    layers = {"conv1": conv(nn, 7, channels, width, 2)}
    if version == 1:
        layers |= {"bn1": nn.BatchNorm2d(width), "relu": nn.ReLU()}
    layers["maxpool"] = nn.MaxPool2d(3, 2, 1)
    before = width
    for stage, count in enumerate(STAGES[depth]):
        blocks = []
        for number in range(count):
            blocks.append(torch_block(nn, version, before, width * 2**stage, 2 if stage and not number else 1))
            before = EXPANSION * width * 2**stage
        layers[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    if version == 2:
        layers |= {"bn": nn.BatchNorm2d(before), "relu": nn.ReLU()}
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(before, CLASSES)}
    model = nn.Sequential(OrderedDict(layers)).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def save_state(model, path):
    safetensors.numpy.save_file({name: value.numpy().copy() for name, value in model.state_dict().items()}, path)


def both(torch, path, depth, version, width=6, size=40, channels=3):
    """Return ``(network, model)`` with the same random weights, the network filled by `load_torchvision`."""
    model = torch_resnet(torch, depth, version, width, channels)
    network = models.resnet(
        depth, version, input_shape=(size, size, channels), classes=CLASSES, width=width, rng=np.random.default_rng(0)
    ).astype(np.float64)
    save_state(model, path)
    nnlib.load_torchvision(path, network)
    return network, model


def batch(torch, network, n=6, seed=1):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(n, *network.input_shape)), rng.integers(0, CLASSES, size=n)
    return x, labels, torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)


def ours(name, tensor):
    """Return a PyTorch tensor in this library's order of axes."""
    array = tensor.detach().numpy()
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def assert_close(name, actual, expected):
    assert actual.shape == expected.shape, name
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= TOLERANCE, f"{name}: {error:.1e}"


def assert_same_state(network, model):
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            mine = network.parameters.get(name, network.buffers.get(name))
            assert_close(name, mine, ours(name, tensor))


def assert_same_step(torch, network, model, *, train, n=6):
    """Hold logits, loss and every gradient of one pass to PyTorch's."""
    x, labels, tx, tlabels = batch(torch, network, n)
    model.train(train)
    logits = model(tx)
    loss = torch.nn.functional.cross_entropy(logits, tlabels)
    loss.backward()
    result = network.backpropagate(x, labels, train=train)
    assert_close("logits", result.logits, logits.detach().numpy())
    assert result.data_loss == pytest.approx(loss.item(), rel=TOLERANCE)
    slopes = {name: ours(name, parameter.grad) for name, parameter in model.named_parameters()}
    assert set(result.gradients) == set(slopes)
    for name, slope in slopes.items():
        assert_close(name, result.gradients[name], slope)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("depth", "version"), [(50, 1), (101, 1), (50, 2), (101, 2)])
def test_logits_and_every_gradient(torch, tmp_path, depth, version, train):
    network, model = both(torch, tmp_path / "state.safetensors", depth, version)
    assert_same_state(network, model)
    assert_same_step(torch, network, model, train=train)
    assert_same_state(network, model)  # running statistics


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_logits_and_every_gradient_at_full_width(torch, tmp_path, version):
    network, model = both(torch, tmp_path / "state.safetensors", 50, version, width=64, size=48, channels=1)
    assert_same_step(torch, network, model, train=True, n=8)
    assert_same_state(network, model)


@pytest.mark.parametrize("version", [1, 2])
def test_three_steps_of_training(torch, tmp_path, version):
    network, model = both(torch, tmp_path / "state.safetensors", 50, version)
    optimizer, rate, momentum = nnlib.SGD(momentum=0.9), 0.01, 0.9
    velocity = {name: np.zeros_like(array) for name, array in network.parameters.items()}
    theirs = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
    model.train()
    for step in range(3):
        x, labels, tx, tlabels = batch(torch, network, seed=step)
        gradients = network.loss(x, labels)[1]
        optimizer.update(network.parameters, gradients, velocity, rate=rate, momentum=momentum)
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(model(tx), tlabels).backward()
        theirs.step()
    assert_same_state(network, model)
    x, _, tx, _ = batch(torch, network, seed=9)
    model.eval()
    assert_close("logits", network.forward(x), model(tx).detach().numpy())


def narrow(depth=50, **options):
    settings = {"input_shape": (32, 32, 3), "classes": CLASSES, "width": 2, **options}
    return models.resnet(depth, 1, **settings, rng=np.random.default_rng(0))


def state_of(network):
    """Return the state that torchvision would hold for the network, without PyTorch."""

    def turn(array):
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T)

    arrays = {**network.parameters, **network.buffers}
    state = {name: turn(array) for name, array in arrays.items() if not name.startswith("normalize.")}
    counts = {name.replace("running_mean", "num_batches_tracked") for name in state if name.endswith("running_mean")}
    return state | {name: np.array(7) for name in counts}


def test_loading_fills_all_but_the_normalization(tmp_path):
    source, network = narrow(), narrow()
    source.vector[...] = np.random.default_rng(1).normal(size=source.vector.shape)
    for buffer in source.buffers.values():
        buffer[...] = 2
    safetensors.numpy.save_file(state_of(source), tmp_path / "state.safetensors")
    nnlib.load_torchvision(tmp_path / "state.safetensors", network)
    np.testing.assert_array_equal(network.vector, source.vector)
    for name, buffer in network.buffers.items():
        expected = {"normalize.mean": 0, "normalize.deviation": 1}.get(name, 2)
        assert (buffer == expected).all(), name


def test_tensors_that_do_not_fit_are_all_listed_and_nothing_is_changed(tmp_path):
    path, network = tmp_path / "state.safetensors", narrow(input_shape=(32, 32, 1))
    before = network.vector.copy()
    state = state_of(narrow())
    state["stranger"] = state.pop("layer1.0.bn1.running_var")
    state["fc.weight"] = state["fc.weight"][:, :-1].copy()
    safetensors.numpy.save_file(state, path)
    with pytest.raises(ValueError, match=r"layer1\.0\.bn1\.running_var is missing") as error:
        nnlib.load_torchvision(path, network)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert "stranger is unexpected" in message
    assert "conv1.weight has shape (7, 7, 3, 2), expected (7, 7, 1, 2)" in message
    assert "fc.weight has shape (63, 5), expected (64, 5)" in message
    np.testing.assert_array_equal(network.vector, before)


def test_the_state_of_another_depth_is_refused(tmp_path):
    safetensors.numpy.save_file(state_of(narrow(101)), tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match=r"layer3\.22\.bn3\.weight is unexpected"):
        nnlib.load_torchvision(tmp_path / "state.safetensors", narrow(50))


def test_broken_files_are_told_in_one_line(tmp_path):
    path, network = tmp_path / "state.safetensors", narrow()
    with pytest.raises(FileNotFoundError, match="found none"):
        nnlib.load_torchvision(path, network)
    safetensors.numpy.save_file(state_of(network), path)
    whole = path.read_bytes()
    for content in (b"conv1.weight = 1\n", whole[:-100], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="expected a safetensors file") as error:
            nnlib.load_torchvision(path, network)
        assert "\n" not in str(error.value)


def test_numbers_that_numpy_does_not_have_are_told(tmp_path):
    path, header = tmp_path / "state.safetensors", b'{"fc.bias":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ValueError, match="expected tensors of float16, 32 or 64"):
        nnlib.load_torchvision(path, narrow())
