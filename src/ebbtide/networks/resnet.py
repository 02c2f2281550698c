"""Diffusion Policy's encoder of images: a ResNet without BatchNorm, and where in the image its features are.

Chi et al. 2023, arXiv:2303.04137, Section III-B. `ObservationEncoder` is a smaller one, made for CPUs.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from ..errors import InputError
from .parts import check_sizes, whole_numbers

__all__ = ["DEPTHS", "BasicBlock", "Crop", "KeypointEncoder", "Keypoints", "resnet", "spatial_softmax"]

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # blocks of each stage: arXiv:1512.03385, Table 1
WIDTHS = (64, 128, 256, 512)
PER_GROUP = 16  # channels of a norm's group


def spatial_softmax(maps: Float[Tensor, "n k rows columns"]) -> Float[Tensor, "n k 2"]:
    """The expected place of each map: Σᵢⱼ softmax(map)ᵢⱼ (xⱼ, yᵢ), x and y from -1 to 1, centre to centre of the ends.

    Levine et al. 2016, arXiv:1504.00702, Section 5.1.

    maps: of activations, each of any finite numbers.
    """
    weight = maps.flatten(2).softmax(2).unflatten(2, maps.shape[2:])
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64).to(maps) for n in maps.shape[2:])
    return torch.stack([weight.sum(2) @ x, weight.sum(3) @ y], 2)


class BasicBlock(nn.Module):
    """ReLU(norm(conv₂ ReLU(norm(conv₁ x))) + shortcut(x)) (He et al. 2016, arXiv:1512.03385, Figure 5, left).

    x: (b, into, h, w), the output: (b, out, h / stride, w / stride). The shortcut is x itself, or norm(W x) of every
    stride-th pixel where the sizes differ. norms: without, the convolutions have a bias instead.
    """

    def __init__(self, into: int, out: int, stride: int, *, norms: bool = True) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(into, out, 3, stride, norms), _norm(out, norms)
        self.conv2, self.norm2 = _conv(out, out, 3, 1, norms), _norm(out, norms)
        same = into == out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(_conv(into, out, 1, stride, norms), _norm(out, norms))

    def forward(self, x: Float[Tensor, "b into h w"]) -> Float[Tensor, "b out r c"]:
        h = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
        return relu(h + self.shortcut(x))


def resnet(layers: int = 18, *, norms: bool = True) -> nn.Sequential:
    """A ResNet's convolutions: (b, 3, h, w) → (b, 512, h / 32, w / 32), sizes rounded up (arXiv:1512.03385, Table 1).

    Its norms are GroupNorms with 16 channels to a group (Wu & He 2018, arXiv:1803.08494), which an average of the
    weights leaves right, unlike BatchNorm's statistics. layers: 18 or 34. norms: without, its convolutions have a bias
    instead, as those into which trained BatchNorms were folded.
    """
    stages = []
    for stage, depth in enumerate(DEPTHS[layers]):
        into, out = WIDTHS[max(stage - 1, 0)], WIDTHS[stage]
        first = BasicBlock(into, out, 2 if stage else 1, norms=norms)
        stages.append(nn.Sequential(first, *(BasicBlock(out, out, 1, norms=norms) for _ in range(depth - 1))))
    return nn.Sequential(
        _conv(3, WIDTHS[0], 7, 2, norms), _norm(WIDTHS[0], norms), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *stages
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Keypoints(nn.Module):
    """ReLU(W p + b) of the places p of `count` keypoints, each the `spatial_softmax` of a map over a ResNet's output.

    x: (n, 3, h, w), the output: (n, 2 · count). layers, norms: of the ResNet.
    """

    def __init__(self, count: int, layers: int, *, norms: bool = True) -> None:
        super().__init__()
        self.trunk, self.maps = resnet(layers, norms=norms), nn.Conv2d(WIDTHS[-1], count, 1)
        self.out = nn.Linear(2 * count, 2 * count)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f"]:
        return relu(self.out(spatial_softmax(self.maps(self.trunk(x))).flatten(1)))


class Crop(nn.Module):
    """A window of images: in training at a random place, the same for all images of an example, else in the middle.

    Chi et al. 2023, arXiv:2303.04137, Section III-B. Places are drawn from torch's own generator, as dropout's numbers.
    height, width: of the window.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.size, self.draws = (height, width), True

    def forward(self, images: Float[Tensor, "b k 3 h w"]) -> Float[Tensor, "b k 3 r c"]:
        (height, width), (h, w) = self.size, images.shape[3:]
        if not self.training:
            y, x = round((h - height) / 2), round((w - width) / 2)
            return images[..., y : y + height, x : x + width]
        rows = torch.randint(h - height + 1, (len(images),)).tolist()
        columns = torch.randint(w - width + 1, (len(images),)).tolist()
        return torch.stack([
            part[..., y : y + height, x : x + width] for part, y, x in zip(images, rows, columns)
        ])  # fmt: skip


class KeypointEncoder(nn.Module):
    """The `Keypoints` of each image, resized and cropped: (b, k, h, w, 3) → (b, k · features), 0 for a missing image.

    shape: (k, h, w, 3) of the images. layers: 18 or 34, of the ResNet. keypoints: of each image, two features each.
    crop: "84-84", the height and width of a window, or "" for the whole image; see Crop. resize: "240-320", to which
    images are resized before, or "". encoders: 1 for all images, or one for each of that many cameras: image i is of
    camera i mod encoders. norms: see `resnet`.

    The buffers mean and std (k, 3) standardise each image's channels, in [0, 1]; by default these become [-1, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, shape: tuple[int, ...], *, layers: int = 18, keypoints: int = 32, crop: str = "", resize: str = "",
        encoders: int = 1, norms: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        k, *size = shape[:3]
        check_sizes("keypoints", keypoints=(keypoints, 1, 65536), encoders=(encoders, 1, 65536))
        if layers not in DEPTHS:
            raise InputError(f"keypoints: a ResNet must have {' or '.join(map(str, DEPTHS))} layers; got {layers!r}.")
        if k % encoders:
            raise InputError(f"keypoints: encoders must divide the number of images, which is {k}; got {encoders}.")
        self.size = tuple(_sides("resize", resize, 65536, 65536)) if resize else ()
        self.crop = Crop(*_sides("crop", crop, *(self.size or size))) if crop else nn.Identity()
        self.encoders = nn.ModuleList(Keypoints(keypoints, layers, norms=norms) for _ in range(encoders))
        self.features = k * 2 * keypoints
        self.register_buffer("mean", torch.full((k, 3), 0.5))
        self.register_buffer("std", torch.full((k, 3), 0.5))

    def forward(
        self, images: UInt8[Tensor, "b k h w 3"], image_mask: Bool[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b features"]:
        b, k, many = *images.shape[:2], len(self.encoders)
        x = images.movedim(4, 2).to(self.mean.dtype) / 255
        x = (x - self.mean[..., None, None]) / self.std[..., None, None]
        if self.size:
            x = interpolate(x.flatten(0, 1), self.size, mode="bilinear", antialias=True).unflatten(0, (b, k))
        x = self.crop(x)
        parts = [net(x[:, i::many].flatten(0, 1)).unflatten(0, (b, -1)) for i, net in enumerate(self.encoders)]
        features = torch.stack(parts, 2).flatten(1, 2)
        return (features if image_mask is None else features * image_mask[..., None]).flatten(1)


def _conv(into: int, out: int, kernel: int, stride: int, norms: bool) -> nn.Conv2d:
    """A convolution that starts with He's weights (arXiv:1502.01852, Eq. 14), by the outputs that an input is in."""
    layer = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=not norms)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _norm(channels: int, norms: bool) -> nn.Module:
    return nn.GroupNorm(channels // PER_GROUP, channels) if norms else nn.Identity()


def _sides(what: str, text: str, height: int, width: int) -> list[int]:
    """Two sides in pixels, within those of the image."""
    sides = whole_numbers(f"keypoints: {what}", text, 1, 65536)
    if len(sides) != 2 or sides[0] > height or sides[1] > width:
        raise InputError(f"keypoints: {what} must be HEIGHT-WIDTH, at most {height}-{width}; got {text!r}.")
    return sides
