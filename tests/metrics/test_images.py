import math

import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.metrics import (
    IMAGE_METRICS,
    extractors,
    frechet_distance,
    kid,
    measure_images,
    nearest,
    precision_recall,
    table,
    to_json,
    train_classifier,
)
from ebbtide.metrics.extractors import EXTRACTORS, Classifier, RealImages
from ebbtide.metrics.images import Shown


def pictures(n, seed):
    """8 × 8: a soft blob in one of three corners, of random place, width and brightness."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=g)
    centre = torch.tensor([[2.0, 2.0], [2.0, 5.5], [5.5, 3.5]])[labels] + 0.5 * torch.randn(n, 2, generator=g)
    grid = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), -1)
    away = (grid - centre[:, None, None]).square().sum(-1)
    width, height = 1 + torch.rand(n, 1, 1, generator=g), 150 + 100 * torch.rand(n, 1, 1, generator=g)
    noise = 8 * torch.randn(n, 8, 8, generator=g)
    return (height * (-away / width).exp() + 20 + noise).clamp(0, 255).to(torch.uint8)[:, None], labels


TRAIN, TRAIN_LABELS = pictures(500, 0)
HELD, HELD_LABELS = pictures(320, 1)
NOISE = torch.randint(0, 256, (160, 1, 8, 8), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)


def score(samples, asked=None, **options):
    known = {"train_labels": TRAIN_LABELS, "held_labels": HELD_LABELS, "classes": 3} | options
    report = measure_images(samples, TRAIN, HELD, asked=asked, **known)
    return {row.name: row for row in report.rows}, report


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One folder for the file, so that each classifier is trained once, and for a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors, "_EPOCHS", 8)
        patch.setenv("EBBTIDE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def fresh():
    """160 samples of the distribution itself, each of the class that it was asked for."""
    return score(*pictures(160, 2))


def test_every_metric_stands_beside_its_floor(fresh):
    rows, report = fresh
    assert list(rows) == [
        "FD-classifier",
        "KID-classifier",
        "precision",
        "recall",
        "density",
        "coverage",
        "asked class recognised",
        "nearest training image",
        "copies",
    ]
    assert len(rows) == len(IMAGE_METRICS)
    for row in rows.values():
        assert row.low <= row.value <= row.high
        assert row.floor_low <= row.floor <= row.floor_high
        if row.name == "asked class recognised":
            assert row.note == "all 160 samples; the floor is that of 160 held-out images at a time"
        else:
            assert "160 of 160 samples" in row.note
            assert "against 500 of 500 training images" in row.note
    text = table(report.rows)
    assert text.count("160 of 160 samples") == 1
    assert "every row but asked class recognised: 160 of" in text
    assert '"name": "copies"' in to_json(report.rows)


def test_the_truth_is_at_its_floor(fresh):
    """Seeded, so it either always passes or never does."""
    rows, _ = fresh
    assert all(row.at_floor for row in rows.values()), table(list(rows.values()))
    assert rows["copies"].floor == pytest.approx(0.01, abs=0.015)
    assert rows["asked class recognised"].value > 0.97
    assert rows["precision"].value > 0.8
    assert 5 < rows["nearest training image"].value < 20  # the noise of two images alone: 8 √2 = 11


def test_noise_fails_everywhere_but_in_copies():
    rows, _ = score(NOISE, torch.arange(160) % 3)
    failed = [name for name, row in rows.items() if not row.at_floor]
    assert set(failed) >= set(rows) - {"copies", "recall"}
    assert rows["FD-classifier"].value > 4 * rows["FD-classifier"].floor_high
    assert rows["asked class recognised"].value < 0.6
    assert rows["precision"].value < 0.5
    assert rows["nearest training image"].value > 80
    assert rows["copies"].value == 0


def test_training_images_are_caught_by_the_last_rows_alone():
    rows, report = score(TRAIN[200:360], TRAIN_LABELS[200:360])
    assert rows["copies"].value == 1
    assert rows["copies"].low > 0.97
    assert not rows["copies"].at_floor
    assert rows["nearest training image"].value == 0
    assert not rows["nearest training image"].at_floor
    assert rows["FD-classifier"].value < rows["FD-classifier"].floor
    assert report.nearest.index.tolist() == (200 + report.kept).tolist()
    assert set(report.nearest.distance.tolist()) == {0}


def test_a_third_of_copies_is_seen():
    samples, _ = pictures(160, 3)
    samples[:53] = TRAIN[:53]
    rows, _ = score(samples)
    assert rows["copies"].value == pytest.approx(53 / 160, abs=0.03)
    assert not rows["copies"].at_floor


def test_a_lost_class_is_seen():
    samples, labels = pictures(480, 4)
    rows, _ = score(samples[labels != 1][:160])
    for name in ("FD-classifier", "KID-classifier", "recall", "coverage"):
        assert not rows[name].at_floor, name
    assert rows["precision"].at_floor


def test_wrong_classes_are_seen():
    samples, labels = pictures(160, 2)
    rows, _ = score(samples, (labels + 1) % 3)
    assert rows["asked class recognised"].value < 0.03
    assert not rows["asked class recognised"].at_floor
    assert rows["asked class recognised"].floor > 0.97


def test_the_judge_made_no_features_and_saw_no_held_out_image(fresh, monkeypatch):
    """Another network on the same training images; what it says moves its own row and no other."""
    made = {}

    class Backwards(Classifier):
        def predict(self, images):
            return (super().predict(images) + 1) % 3

    def watched(where, kind):
        def train(images, *rest, **options):
            found = train_classifier(images, *rest, **options)
            made[where] = images, found.network.state_dict()
            return kind(found.network, found.accuracy)

        return train

    monkeypatch.setattr(extractors, "train_classifier", watched("features", Classifier))
    monkeypatch.setattr("ebbtide.metrics.image_judge.train_classifier", watched("judge", Backwards))
    rows, _ = score(*pictures(160, 2))
    assert all(torch.equal(images, TRAIN) for images, _ in made.values())
    (_, features), (_, judge) = made["features"], made["judge"]
    assert not any(torch.equal(part, judge[name]) for name, part in features.items() if part.ndim > 1)
    usual, _ = fresh
    assert [name for name, row in rows.items() if row.value != usual[name].value] == ["asked class recognised"]
    assert rows["asked class recognised"].value < 0.03
    assert rows["asked class recognised"].floor < 0.03


def test_the_rows_are_the_metrics_of_the_features(fresh):
    """With as few training images as are looked at, nothing is drawn at random but the order."""
    samples, _ = pictures(160, 2)
    real = RealImages(TRAIN, HELD, TRAIN_LABELS, HELD_LABELS, 3)
    x, y = (EXTRACTORS["classifier"](real)(images) for images in (samples, TRAIN))
    rows, report = fresh
    assert rows["FD-classifier"].value == pytest.approx(frechet_distance(x, y), rel=1e-4)
    assert rows["KID-classifier"].value == pytest.approx(kid(x, y), rel=1e-3, abs=1e-5)
    near = nearest(samples, TRAIN)
    assert torch.equal(near.index[report.kept], report.nearest.index)
    assert rows["nearest training image"].value == pytest.approx(near.distance.sort().values[79:81].mean().item())


def test_precision_is_at_equal_numbers():
    x, y = torch.randn(30, 2), torch.randn(80, 2)
    shown = Shown(x, y, torch.zeros(30), torch.zeros(30))
    assert shown.manifold.recall == precision_recall(x, y[:30], 5).recall


def test_the_median_has_the_interval_of_its_order_statistics():
    """Of 1, …, 10: P(B ≤ 1) = 11/1024 ≤ 2.5 % < P(B ≤ 2) = 56/1024, hence 2 to 9."""
    distance = torch.arange(1.0, 11.0)[torch.randperm(10)]
    metric = IMAGE_METRICS["nearest training image"]
    shown = Shown(torch.zeros(10, 1), torch.zeros(10, 1), distance, distance)
    assert metric.value(shown) == 5.5
    assert metric.interval(shown, 5.5, 0) == (2, 9)


def test_the_floor_is_of_as_many_held_out_images():
    """480 samples can't be held against a floor of 320 images: half of those, 160, are."""
    samples, labels = pictures(480, 5)
    rows, report = score(samples, labels)
    assert len(report.kept) == len(report.nearest.index) == 160
    assert len(set(report.kept.tolist())) == 160
    assert "160 of 480 samples, as many of 320 held-out" in rows["copies"].note


def test_the_share_that_is_recognised_is_that_of_all_samples():
    """A third of 480 samples is measured otherwise, but every one is judged."""
    x, labels = pictures(480, 5)
    wrong = torch.arange(480) < 120
    rows, report = score(x, asked=torch.where(wrong, (labels + 1) % 3, labels))
    assert len(report.kept) == 160
    assert abs(rows["asked class recognised"].value - 0.75) < 0.01


def test_the_floor_of_copies_is_of_halves_that_share_nothing(fresh):
    """A half beside its own nearest 1 % would be at the same share, 2 of 160, in every repeat."""
    rows, _ = fresh
    assert rows["copies"].floor_low < rows["copies"].floor_high


def test_few_images_get_no_frechet_distance():
    """96 features need more than 96 images."""
    rows, _ = score(pictures(90, 6)[0])
    assert "FD-classifier" not in rows
    assert "FD-classifier needs more than 96 images and is left out" in rows["KID-classifier"].note
    rows, _ = score(pictures(160, 6)[0], at_most=96)
    assert "FD-classifier" not in rows
    assert "96 of 160 samples" in rows["KID-classifier"].note


def test_without_labels():
    rows, _ = score(pictures(160, 2)[0], train_labels=None, held_labels=None, classes=0)
    assert list(rows)[:2] == ["FD-random", "KID-random"]
    assert "asked class recognised" not in rows
    bad, _ = score(NOISE, train_labels=None, held_labels=None, classes=0)
    assert bad["KID-random"].low > rows["KID-random"].floor_high
    assert not bad["precision"].at_floor


def test_the_same_seed_measures_the_same(fresh):
    _, report = fresh
    assert to_json(score(*pictures(160, 2))[1].rows) == to_json(report.rows)
    again, _ = score(*pictures(160, 2), seed=1)
    assert again["FD-classifier"].value == pytest.approx(fresh[0]["FD-classifier"].value, rel=1e-6)  # all 160 anyway
    assert again["FD-classifier"].floor != fresh[0]["FD-classifier"].floor
    assert all(math.isfinite(row.high) for row in again.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": TRAIN[:5]}, "at least 6 samples, 12 held-out and 6 training images; got 5, 320 and 500"),
        ({"held": HELD[:11], "held_labels": HELD_LABELS[:11]}, "got 100, 11 and 500"),
        ({"samples": TRAIN[:100, :, :7]}, "samples must be images"),
        ({"held": HELD[:, :, :7]}, "held must be images"),
        ({"asked": TRAIN_LABELS[:7]}, "one class for each of the 100 samples; got 7"),
        ({"asked": TRAIN_LABELS[:100] + 1}, r"0\.\.2; got 1 to 3"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"at_most": 5}, "at_most must be at least 6"),
        ({"classes": 0}, "classes must be at least 2"),
        ({"extractor": "vgg"}, "extractor must be one of .*'vgg'"),
    ],
)
def test_what_is_refused(change, words):
    given = {"samples": TRAIN[:100], "train": TRAIN, "held": HELD}
    given |= {"train_labels": TRAIN_LABELS, "held_labels": HELD_LABELS, "classes": 3} | change
    with pytest.raises(InputError, match=words) as refused:
        measure_images(**given)
    assert "\n" not in str(refused.value)
