"""Samples that come in pieces, to several processes: the report is that of one process that has them all."""

import math
from itertools import pairwise

import pytest
import torch

from ebbtide.data.shards import Shards, write_shard
from ebbtide.metrics import ImageJudge, extractors, frechet_distance, kid, measure_images, nearest
from ebbtide.metrics.extractors import EXTRACTORS, RealImages
from metrics.test_images import HELD, HELD_LABELS, TRAIN, TRAIN_LABELS, pictures

REAL = {"train_labels": TRAIN_LABELS, "held_labels": HELD_LABELS, "classes": 3}
SAMPLES, ASKED = pictures(400, 7)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors, "_EPOCHS", 2)
        patch.setenv("EBBTIDE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def in_pieces(*cuts, train=TRAIN, held=HELD, **options):
    """The report of processes that draw the samples between these cuts, forty at a time."""
    every, ends = [], (0, *cuts, len(SAMPLES))
    for rank, (first, end) in enumerate(pairwise(ends)):
        judge = ImageJudge(len(SAMPLES), train, held, **options)
        for at in range(first, end, 40):
            judge.look(at, SAMPLES[at : min(at + 40, end)])
        every.append(judge.seen(rank, len(cuts) + 1))
    return judge.report(every)


def mean_gap(samples, real):
    return abs(float(samples.double().mean() - real.double().mean()))


@pytest.mark.parametrize("at_most", [5000, 150])  # all samples are few, or too many to be measured in every way
@pytest.mark.parametrize("cuts", [(), (130, 400)])  # of three processes the last has nothing to draw
def test_pieces_and_processes_change_nothing(cuts, at_most):
    options = {"asked": ASKED, "at_most": at_most, "own": {"mean gap": mean_gap}} | REAL
    whole, cut = measure_images(SAMPLES, TRAIN, HELD, **options), in_pieces(*cuts, **options)
    assert len(whole.rows) == (10 if at_most == 5000 else 12)
    assert torch.equal(cut.kept, whole.kept)
    assert torch.equal(cut.nearest.index, nearest(SAMPLES[cut.kept], TRAIN).index)
    assert torch.equal(cut.closest, whole.closest)
    assert (cut.looked, cut.typical) == (whole.looked, whole.typical)
    for one, other in zip(cut.rows, whole.rows, strict=True):
        assert (one.name, one.note) == (other.name, other.note)
        for part in ("value", "low", "high", "floor", "floor_low", "floor_high", "error", "p"):
            a, b = getattr(one, part), getattr(other, part)
            assert math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-7) or (math.isnan(a) and math.isnan(b)), (one.name, part)


def test_of_more_samples_all_are_measured_by_two_metrics():
    """Against as many training images: FD as if of all at once, KID the mean over blocks that it says."""
    rows = {row.name: row for row in in_pieces(130, at_most=150, **REAL).rows}
    extract = EXTRACTORS["classifier"](RealImages(TRAIN, HELD, TRAIN_LABELS, HELD_LABELS, 3))
    train, _ = ImageJudge(len(SAMPLES), TRAIN, HELD, at_most=150, **REAL).more
    assert len(train.unique()) == 400
    x, y, held = extract(SAMPLES), extract(TRAIN[train]), extract(HELD)
    fd, distance = rows["FD-classifier of all"], rows["KID-classifier of all"]
    assert fd.note.startswith("all 400 samples against 400 training images; the floor is that of 320 held-out images")
    assert fd.value == pytest.approx(frechet_distance(x, y), rel=1e-5)
    assert fd.low < fd.value < fd.high
    assert fd.floor == pytest.approx(frechet_distance(held, y), rel=1e-5)
    assert distance.note == "all 400 samples in 3 blocks, each against 150 training images"
    assert distance.low < kid(x, extract(TRAIN)) < distance.high
    assert distance.high - distance.low < rows["KID-classifier"].high - rows["KID-classifier"].low
    assert (distance.floor, distance.floor_low) == (rows["KID-classifier"].floor, rows["KID-classifier"].floor_low)
    assert math.isnan(distance.p)
    assert math.isnan(fd.p)
    assert fd.value < rows["FD-classifier"].value  # whose bias is that of 150 images


def test_no_more_images_than_are_measured_are_kept():
    judge = ImageJudge(len(SAMPLES), TRAIN, HELD, at_most=100, **REAL)
    for at in range(0, 400, 40):
        judge.look(at, SAMPLES[at : at + 40])
    assert sum(len(look["images"]) for look in judge._looks) == 100
    parts = judge.seen().parts
    assert "images" not in parts
    assert max(part.numel() for name, part in parts.items() if part.dtype == torch.uint8) == 16 * 64
    assert parts["features"].shape == (400, 96)


def test_sets_on_the_disk_are_judged_without_being_read_at_once(tmp_path, monkeypatch):
    shards = [
        write_shard(tmp_path / f"{k}.safetensors", part, {})
        for k, part in enumerate(torch.cat([TRAIN, HELD]).split(90))
    ]
    train, held = (Shards(shards, "here").part(torch.arange(*ends)) for ends in ((0, 500), (500, 820)))
    most, read = [], Shards.index_select
    monkeypatch.setattr(Shards, "tensor", lambda self: pytest.fail("all of it is read at once"))
    monkeypatch.setattr(
        Shards, "index_select", lambda self, dim, places: most.append(len(places)) or read(self, dim, places)
    )
    monkeypatch.setattr("ebbtide.metrics.memorisation._BLOCK", 8 * 64 * 70)
    options = {"asked": ASKED, "at_most": 30} | REAL
    whole = measure_images(SAMPLES, TRAIN, HELD, **options)
    there = measure_images(SAMPLES, train, held, **options)
    assert there.rows == whole.rows
    assert torch.equal(there.beside, whole.beside)
    assert max(most) <= 400 < len(train)  # the training images beside all 400 samples, in blocks of at most 512
