"""The networks of the report, built from layers.

Weights before a rectifier start as He et al. 2015 say, norms at scale 1 and shift 0, biases at 0, and each last linear
layer small, so that the loss starts at ln(classes).
"""

import math

from nnlib import initialization
from nnlib.layers import (
    BatchNorm,
    Conv2d,
    Dropout,
    Generator,
    GlobalAvgPool2d,
    Layer,
    Linear,
    MaxPool2d,
    Normalize,
    ReLU,
    Standardize,
)
from nnlib.network import Network, Residual, Sequential

STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # bottleneck blocks a stage, by depth
EXPANSION = 4  # a bottleneck's output is this many times as wide as its 3x3 convolution


def mlp(
    input_shape: tuple[int, ...],
    hidden: tuple[int, ...],
    classes: int,
    *,
    dropout: float = 0.0,
    batch_norm: bool = False,
    standardize: bool = False,
    rng: Generator,
) -> Network:
    """Return a fully connected network: normalise, then (linear, norm, ReLU, dropout) a hidden width, then linear.

    input_shape: (32, 32, 3) for images, (20,) for features;  hidden: widths, () for a linear classifier;  dropout: the
    probability to drop after each hidden layer;  batch_norm: put a norm between each hidden layer and its rectifier;
    standardize: begin with each input's own mean and deviation instead of the training set's.
    Raises ValueError for widths or classes below 1.
    """
    input_shape, hidden = tuple(input_shape), tuple(hidden)
    if not input_shape or min((*input_shape, *hidden, classes)) < 1:
        raise ValueError(
            f"mlp: expected sizes of at least 1, got input_shape {input_shape}, hidden {hidden}, classes {classes}"
        )
    layers: dict[str, Layer] = {"normalize": Normalize(input_shape[-1])}
    if standardize:
        layers = {"standardize": Standardize()}
    width = math.prod(input_shape)
    for number, units in enumerate(hidden, 1):
        layers[f"fc{number}"] = Linear(initialization.he((width, units), rng))
        if batch_norm:
            layers[f"norm{number}"] = BatchNorm(units)
        layers[f"relu{number}"] = ReLU()
        if dropout:
            layers[f"dropout{number}"] = Dropout(dropout)
        width = units
    layers["fc"] = Linear(initialization.small((width, classes), rng))
    return Network(Sequential(layers), input_shape)


def small_cnn(
    input_shape: tuple[int, int, int] = (48, 48, 1), classes: int = 7, *, dropout: float = 0.5, rng: Generator
) -> Network:
    """Return the small CNN of notebook 06: two 5x5 convolutions of 16 and 32 filters, then a hidden layer of 1024.

    Each convolution keeps the image's size and is followed by ReLU and a 2x2 max-pool; dropout, with probability
    ``dropout`` to drop, stands before and after the hidden layer. Raises ValueError for images below 4x4.
    """
    height, width, channels = _image_shape("small_cnn", input_shape, classes, smallest=4)
    layers: dict[str, Layer] = {"normalize": Normalize(channels)}
    for number, (before, filters) in enumerate([(channels, 16), (16, 32)], 1):
        layers[f"conv{number}"] = Conv2d(initialization.he((5, 5, before, filters), rng), padding=2)
        layers[f"relu{number}"] = ReLU()
        layers[f"pool{number}"] = MaxPool2d(2)
    features = (height // 4) * (width // 4) * 32
    layers |= {"dropout1": Dropout(dropout)} if dropout else {}
    layers |= {"fc1": Linear(initialization.he((features, 1024), rng)), "relu3": ReLU()}
    layers |= {"dropout2": Dropout(dropout)} if dropout else {}
    layers["fc"] = Linear(initialization.small((1024, classes), rng))
    return Network(Sequential(layers), input_shape)


def face_cnn(input_shape: tuple[int, int, int] = (48, 48, 1), classes: int = 7, *, rng: Generator) -> Network:
    """Return a deeper CNN for faces: four stages of two 3x3 convolutions with 32, 64, 128 and 256 filters.

    A norm and ReLU follow each convolution, a 2x2 max-pool and dropout (0.1, 0.1, 0.2) each stage but the last; then
    come the mean over all pixels, dropout 0.4 and the linear layer. Raises ValueError for images below 8x8.
    """
    *_, channels = _image_shape("face_cnn", input_shape, classes, smallest=8)
    layers: dict[str, Layer] = {"normalize": Normalize(channels)}
    for number, (filters, drop) in enumerate([(32, 0.1), (64, 0.1), (128, 0.2), (256, 0.0)], 1):
        stage: dict[str, Layer] = {}
        for place in (1, 2):
            stage[f"conv{place}"] = _conv(3, channels, filters, rng)
            stage[f"norm{place}"] = BatchNorm(filters)
            stage[f"relu{place}"] = ReLU()
            channels = filters
        if drop:
            stage |= {"pool": MaxPool2d(2), "dropout": Dropout(drop)}
        layers[f"stage{number}"] = Sequential(stage)
    layers |= {"avgpool": GlobalAvgPool2d(), "dropout": Dropout(0.4)}
    layers["fc"] = Linear(initialization.small((channels, classes), rng))
    return Network(Sequential(layers), input_shape)


def resnet(
    depth: int,
    version: int,
    *,
    input_shape: tuple[int, int, int] = (48, 48, 1),
    classes: int = 7,
    width: int = 64,
    shortcut: bool = True,
    zero_init: bool = False,
    rng: Generator,
) -> Network:
    """Return ResNet-50 or ResNet-101 of bottleneck blocks: version 1 (He et al. 2015) or 2 (pre-activation, 2016).

    The stem is a 7x7 convolution of ``width`` filters, stride 2, and a 3x3 max-pool, stride 2; stages 2 to 4 halve the
    image in the 3x3 convolution of their first block and double the filters. Names are torchvision's in version 1.
    Version 2 has no norm and rectifier between stem convolution and pool, since the first block begins with its own;
    a last pair, ``bn`` and ``relu``, follows the last block.
    shortcut: False leaves every addition out, the plain network to compare with.  zero_init: each block starts as its
    shortcut alone, the scale of its last norm being 0 (version 1). In version 2 its last convolution starts at 0
    instead: a norm at 0 before a rectifier would stop the gradients of scale and convolution alike for good.
    Raises ValueError for other depths or versions, sizes below 1, and zero_init without shortcuts.
    Source: arXiv:1512.03385, table 1; arXiv:1603.05027, figure 4e and appendix; Goyal et al. 2017, section 5.1.
    """
    *_, channels = _image_shape("resnet", input_shape, classes, width, smallest=1)
    if depth not in STAGES or version not in (1, 2):
        raise ValueError(f"resnet: expected depth 50 or 101 and version 1 or 2, got depth {depth}, version {version}")
    if zero_init and not shortcut:
        raise ValueError("resnet: zero_init needs shortcuts; without them the output would be constant")
    layers: dict[str, Layer] = {"normalize": Normalize(channels)}
    layers["conv1"] = _conv(7, channels, width, rng, stride=2)
    if version == 1:
        layers |= {"bn1": BatchNorm(width), "relu": ReLU()}
    layers["maxpool"] = MaxPool2d(3, stride=2, padding=1)
    make, channels = (_post_activation, _pre_activation)[version - 1], width
    for stage, count in enumerate(STAGES[depth], 1):
        blocks: dict[str, Layer] = {}
        for number in range(count):
            stride = 2 if stage > 1 and number == 0 else 1
            middle = width << (stage - 1)
            blocks[str(number)] = make(channels, middle, stride, shortcut=shortcut, zero_init=zero_init, rng=rng)
            channels = EXPANSION * middle
        layers[f"layer{stage}"] = Sequential(blocks)
    if version == 2:
        layers |= {"bn": BatchNorm(channels), "relu": ReLU()}
    layers |= {"avgpool": GlobalAvgPool2d(), "fc": Linear(initialization.small((channels, classes), rng))}
    return Network(Sequential(layers), input_shape)


def _post_activation(
    channels: int, middle: int, stride: int, *, shortcut: bool, zero_init: bool, rng: Generator
) -> Layer:
    """Return a bottleneck block of version 1: conv-norm-ReLU twice, conv-norm, the addition, ReLU."""
    out = EXPANSION * middle
    body: dict[str, Layer] = {
        "conv1": _conv(1, channels, middle, rng),
        "bn1": BatchNorm(middle),
        "relu1": ReLU(),
        "conv2": _conv(3, middle, middle, rng, stride=stride),
        "bn2": BatchNorm(middle),
        "relu2": ReLU(),
        "conv3": _conv(1, middle, out, rng),
        "bn3": BatchNorm(out),
    }
    if not shortcut:
        return Sequential({**body, "relu3": ReLU()})
    if zero_init:
        body["bn3"].params["weight"][...] = 0
    downsample = None
    if stride > 1 or channels != out:
        downsample = Sequential({"0": _conv(1, channels, out, rng, stride=stride), "1": BatchNorm(out)})
    return Residual(Sequential(body), downsample, relu=True)


def _pre_activation(
    channels: int, middle: int, stride: int, *, shortcut: bool, zero_init: bool, rng: Generator
) -> Layer:
    """Return a bottleneck block of version 2: norm-ReLU-conv three times, then the addition.

    Where the shape changes, the shortcut is a 1x1 convolution that branches off after the first norm and ReLU: the
    layer under the empty name is the rest of the block, and its parameters keep the block's own name.
    """
    out = EXPANSION * middle
    first: dict[str, Layer] = {"bn1": BatchNorm(channels), "relu1": ReLU()}
    rest: dict[str, Layer] = {
        "conv1": _conv(1, channels, middle, rng),
        "bn2": BatchNorm(middle),
        "relu2": ReLU(),
        "conv2": _conv(3, middle, middle, rng, stride=stride),
        "bn3": BatchNorm(middle),
        "relu3": ReLU(),
        "conv3": _conv(1, middle, out, rng),
    }
    if not shortcut:
        return Sequential(first | rest)
    if zero_init:
        rest["conv3"].params["weight"][...] = 0
    if stride == 1 and channels == out:
        return Residual(Sequential(first | rest))
    downsample = _conv(1, channels, out, rng, stride=stride)
    return Sequential({**first, "": Residual(Sequential(rest), downsample)})


def _conv(size: int, channels: int, filters: int, rng: Generator, *, stride: int = 1) -> Conv2d:
    """Return a size x size convolution without bias that keeps the image's size at stride 1."""
    weight = initialization.he((size, size, channels, filters), rng)
    return Conv2d(weight, bias=False, stride=stride, padding=size // 2)


def _image_shape(
    model: str, input_shape: tuple[int, int, int], classes: int, width: int = 1, *, smallest: int
) -> tuple[int, int, int]:
    """Return ``(height, width, channels)``; ValueError for other shapes, sizes below 1, images below ``smallest``."""
    if len(input_shape) != 3 or min((*input_shape, classes, width)) < 1:
        raise ValueError(
            f"{model}: expected input_shape (height, width, channels) and sizes of at least 1, "
            f"got input_shape {input_shape}, classes {classes}" + (f", width {width}" if model == "resnet" else "")
        )
    height, width, channels = input_shape
    if min(height, width) < smallest:
        raise ValueError(f"{model}: expected images of at least {smallest}x{smallest} pixels, got {height}x{width}")
    return height, width, channels
