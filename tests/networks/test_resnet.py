"""The encoder of images: its trunk beside transformers' ResNet, keypoints by hand, windows, and what is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import problems
from ebbtide.errors import InputError
from ebbtide.networks import NETWORKS
from ebbtide.networks.action_film import ActionFiLMUNet
from ebbtide.networks.resnet import DEPTHS, BasicBlock, Crop, KeypointEncoder, resnet, spatial_softmax
from ebbtide.specs import bind

THEIRS = (  # transformers' names of a ResNet's parts, and ours
    ("embedder.embedder.convolution", "0"), ("embedder.embedder.normalization", "1"),
    ("encoder.stages.0.layers", "4"), ("encoder.stages.1.layers", "5"),
    ("encoder.stages.2.layers", "6"), ("encoder.stages.3.layers", "7"),
    ("layer.0.convolution", "conv1"), ("layer.0.normalization", "norm1"),
    ("layer.1.convolution", "conv2"), ("layer.1.normalization", "norm2"),
    ("shortcut.convolution", "shortcut.0"), ("shortcut.normalization", "shortcut.1"),
)  # fmt: skip


def renamed(name):
    for theirs, ours in THEIRS:
        name = name.replace(theirs, ours)
    return name


def randomised(network, seed=0):
    """With biases and norms that are not where they begin."""
    draw = torch.Generator().manual_seed(seed)
    for part in network.parameters():
        if part.ndim == 1:
            part.data = 1 + 0.3 * torch.randn(part.shape, generator=draw)
    return network.eval()


@pytest.mark.parametrize("layers", DEPTHS)
@torch.no_grad()
def test_the_trunk_is_a_resnet_with_group_norms(layers):
    """Of transformers, with each BatchNorm replaced; sizes that 32 doesn't divide, too."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=list(DEPTHS[layers]), layer_type="basic"
    )
    theirs = transformers.ResNetModel(config)
    for name, part in list(theirs.named_modules()):
        if isinstance(part, nn.BatchNorm2d):
            theirs.set_submodule(name, nn.GroupNorm(part.num_features // 16, part.num_features))
    randomised(theirs)
    ours = resnet(layers).eval()
    ours.load_state_dict({renamed(name): part for name, part in theirs.state_dict().items()})
    for size in ((64, 96), (84, 84), (33, 70)):
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
        found, expected = ours(x), theirs(x).last_hidden_state
        assert found.shape == (2, 512, -(-size[0] // 32), -(-size[1] // 32))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_a_keypoint_is_the_expected_place():
    """By hand: softmax of (0, ln 2, ln 3) along a row of three, of places -1, 0, 1, is (1, 2, 3) / 6: mean 1/3."""
    row = torch.tensor([1.0, 2.0, 3.0]).log().expand(1, 1, 1, 3)
    torch.testing.assert_close(spatial_softmax(row)[0, 0], torch.tensor([1 / 3, -1.0]))
    column = row.mT
    torch.testing.assert_close(spatial_softmax(column)[0, 0], torch.tensor([-1.0, 1 / 3]))
    peaks = torch.zeros(1, 2, 3, 5)
    peaks[0, 0, 2, 1] = peaks[0, 1, 1, 4] = 100.0  # rows and columns, of 3 and 5
    torch.testing.assert_close(spatial_softmax(peaks)[0], torch.tensor([[-0.5, 1.0], [1.0, 0.0]]))
    torch.testing.assert_close(spatial_softmax(torch.zeros(1, 1, 4, 4)), torch.zeros(1, 1, 2), rtol=0, atol=1e-6)


def test_without_norms_convolutions_have_a_bias():
    block = BasicBlock(4, 8, 2, norms=False)
    assert {name for name, _ in block.named_parameters()} == {
        f"{part}.{kind}" for part in ("conv1", "conv2", "shortcut.0") for kind in ("weight", "bias")
    }
    x = torch.randn(2, 4, 6, 6)
    expected = F.relu(block.conv2(F.relu(block.conv1(x))) + block.shortcut[0](x))
    torch.testing.assert_close(block(x), expected)


def test_a_crop_is_in_the_middle_or_one_for_an_example():
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(9.0), indexing="ij")
    images = torch.stack([y, x, y + x]).expand(512, 2, 3, 7, 9)
    crop = Crop(4, 6)
    middle = crop.eval()(images)
    assert middle.shape == (512, 2, 3, 4, 6)
    assert (float(middle[0, 0, 0, 0, 0]), float(middle[0, 0, 1, 0, 0])) == (2, 2)  # 1.5 pixels round to 2
    assert float(Crop(2, 9).eval()(images)[0, 0, 0, 0, 0]) == 2  # and 2.5 too
    torch.manual_seed(0)
    drawn = crop.train()(images)
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    corners = {(int(part[0, 0, 0]), int(part[1, 0, 0])) for part in drawn[:, 0]}
    assert corners == {(y, x) for y in range(4) for x in range(4)}  # all 16 places
    assert torch.equal(drawn[:, 0, 2], drawn[:, 0, 0] + drawn[:, 0, 1])  # of whole windows


def encoder(shape=(4, 40, 48, 3), seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return KeypointEncoder(shape, keypoints=3, **options).eval()


@torch.no_grad()
def test_each_camera_has_its_encoder():
    """Of two cameras at two steps, images 0 and 2 are the first's: the one the encoder alone gives."""
    made, images = encoder(encoders=2), problems.observe(2, {"images": (4, 40, 48, 3)})["images"]
    features = made(images).unflatten(1, (4, 6))
    assert made.features == 24
    x = images.permute(0, 1, 4, 2, 3) / 127.5 - 1
    for i in range(4):
        torch.testing.assert_close(features[:, i], made.encoders[i % 2](x[:, i]), rtol=1e-4, atol=1e-5)
    mask = torch.tensor([[True, False, True, True], [True, True, True, False]])
    hidden = made(images, mask).unflatten(1, (4, 6))
    torch.testing.assert_close(hidden, features * mask[..., None])


@torch.no_grad()
def test_images_are_standardised_resized_and_cropped_in_this_order():
    made = encoder(crop="32-32", resize="40-44")
    made.mean += 0.1 * torch.arange(12).reshape(4, 3)
    made.std *= 1 + 0.1 * torch.arange(12).reshape(4, 3)
    images = problems.observe(2, {"images": (4, 40, 48, 3)})["images"]
    x = (images / 255 - made.mean[:, None, None]) / made.std[:, None, None]
    x = F.interpolate(x.flatten(0, 1).permute(0, 3, 1, 2), (40, 44), mode="bilinear", antialias=True)
    expected = made.encoders[0](x[:, :, 4:36, 6:38]).unflatten(0, (2, 4)).flatten(1)
    torch.testing.assert_close(made(images), expected, rtol=1e-4, atol=1e-5)


def test_it_learns_with_the_network_that_it_is_a_part_of():
    """Every weight gets a gradient, a window is drawn in training alone, and the prompt stays a part of the summary."""
    shapes = {"state": (2, 3), "images": (2, 40, 48, 3), "prompt": (4,)}
    torch.manual_seed(0)
    network = bind(NETWORKS, "action_unet-film:widths=16-32,resnet=18,crop=36-36,keypoints=4,summary=8", "network")(
        8, 2, observation=shapes
    )
    nn.init.normal_(network.out.weight)
    seen, x = problems.observe(2, shapes), torch.randn(2, 8, 2)
    network(x, torch.tensor([0.3, 0.7]), **seen).square().mean().backward()
    assert all(part.grad is not None for part in network.parameters())
    first, again = (network.context(**seen)["observed"] for _ in range(2))
    assert first.shape == (2, 2 * 3 + 2 * 8 + 8)
    assert not torch.equal(first, again)
    network.eval()
    first, again = (network.context(**seen)["observed"] for _ in range(2))
    assert torch.equal(first, again)
    masked = network.context(**seen, image_mask=torch.tensor([[True, False], [True, True]]))["observed"]
    assert bool((masked[0, 14:22] == 0).all())
    assert torch.equal(masked[:, :14], first[:, :14])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layers": 50}, "18 or 34 layers; got 50"),
        ({"crop": "41-40"}, "crop must be HEIGHT-WIDTH, at most 40-48; got '41-40'"),
        ({"crop": "40"}, "crop must be HEIGHT-WIDTH"),
        ({"crop": "a"}, "crop must be numbers"),
        ({"resize": "20-20", "crop": "30-20"}, "crop must be HEIGHT-WIDTH, at most 20-20"),
        ({"encoders": 3}, "divide the number of images, which is 4; got 3"),
        ({"encoders": 0}, "encoders must be"),
    ],
)
def test_what_cannot_be_is_one_sentence(options, named):
    with pytest.raises(InputError, match=named) as refused:
        encoder(**options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("options", [{"resnet": 50}, {"crop": "8-8"}, {"encoders": 2}])
def test_options_of_a_resnet_need_one(options):
    with pytest.raises(InputError, match="resnet must be 18 or 34, as crop, resize and encoders need"):
        ActionFiLMUNet(8, 2, observation={"images": (2, 16, 16, 3)}, **options)
