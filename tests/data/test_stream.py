"""Streams: every image once a pass, in an order that a seed determines, from any place on; what can't be is refused."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from ebbtide.data import stream as streams
from ebbtide.data.stream import StreamData, _expanded, is_stream, open_stream
from ebbtide.errors import InputError

datasets = pytest.importorskip("datasets")

N, HELD = 60, 5
SHAPE = (1, 4, 4)


def png(value, shape=(4, 4)):
    file = io.BytesIO()
    Image.fromarray(np.full(shape, value, np.uint8)).save(file, "png")
    return file.getvalue()


def tars(folder, images, labels, each=25):
    """Tar files as webdataset has them, a few images each."""
    for start in range(0, len(images), each):
        with tarfile.open(folder / f"set-{start // each:03d}.tar", "w") as tar:
            for k in range(start, min(start + each, len(images))):
                for ending, data in (("png", images[k]), ("cls", str(labels[k]).encode())):
                    about = tarfile.TarInfo(f"{k:05d}.{ending}")
                    about.size = len(data)
                    tar.addfile(about, io.BytesIO(data))
    return f"wds:{folder}/set-{{000..{(len(images) - 1) // each:03d}}}.tar"


def rows(images, labels):
    kinds = datasets.Features({"label": datasets.ClassLabel(names=["a", "b", "c"]), "image": datasets.Image()})
    return datasets.Dataset.from_dict(
        {"image": [{"bytes": image, "path": None} for image in images], "label": labels}, features=kinds
    )


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Sixty images whose pixels are their numbers, as tar files, as parquet files, and as `datasets` saves a set."""
    folder = tmp_path_factory.mktemp("sets")
    images, labels = [png(k) for k in range(N)], [k % 3 for k in range(N)]
    (folder / "tars").mkdir()
    (folder / "parquet").mkdir()
    for k in range(3):
        part = slice(20 * k, 20 * k + 20)
        rows(images[part], labels[part]).to_parquet(folder / "parquet" / f"train-{k}.parquet")
    rows(images, labels).save_to_disk(folder / "saved")
    return {
        "tars": tars(folder / "tars", images, labels),
        "parquet": f"hf:{folder}/parquet:stream=7",
        "saved": f"hf:{folder}/saved:image=image,label=label:stream=7",
    }


KINDS = ("tars", "parquet", "saved")


def opened(data, seed=0, held=HELD, buffer=7, label=""):
    found = open_stream(data, label, held / streams.HEAD, seed)
    found.buffer = buffer
    return found


def values(stream, places):
    with Image.open(io.BytesIO(stream.taken([0])[0].image)) as image:
        assert image.size == (4, 4)
    return [Image.open(io.BytesIO(row.image)).getpixel((0, 0)) for row in stream.taken(list(places))]


def test_the_names_of_streams():
    assert all(map(is_stream, ("wds:x.tar", "hf:a/b:stream", "hf:a/b:stream=50", "hf:a/b:c:stream")))
    assert not any(map(is_stream, ("hf:a/b", "hf:stream", "digits", "a:stream", "hf:a/b:streams")))
    assert _expanded("a-{08..11}-{x,y}") == [f"a-{k}-{c}" for k in ("08", "09", "10", "11") for c in "xy"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_comes_once_a_pass_in_blocks_that_are_shuffled(sets, kind):
    """Nearly three passes of the 55 that aren't held out, in blocks of 7 that go over the ends of passes."""
    found = values(opened(sets[kind]), range(161))
    endless = [*range(HELD, N)] * 3
    blocks = [(found[k : k + 7], endless[k : k + 7]) for k in range(0, 161, 7)]
    assert all(sorted(block) == sorted(rows) for block, rows in blocks)
    assert sum(block == rows for block, rows in blocks) < 3
    assert values(opened(sets[kind]), range(161)) == found
    assert values(opened(sets[kind], seed=1), range(161)) != found


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_has_the_same_image_however_it_is_reached(sets, kind):
    straight = values(opened(sets[kind]), range(140))
    jumping = opened(sets[kind])
    for places in ([100, 3, 139], [0, 1], [120, 7], range(50, 60)):
        assert values(jumping, places) == [straight[k] for k in places]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, 24, 55, 133])
def test_a_state_is_gone_on_from(sets, kind, place, monkeypatch):
    """After JSON, and after others were read ahead; the rows before its block aren't read again."""
    first = opened(sets[kind])
    expected = values(first, range(place, place + 30))
    first.taken([place + 50])
    state = json.loads(json.dumps(first.state(place)))
    again, read, own = opened(sets[kind]), [], streams.Stream._following
    monkeypatch.setattr(streams.Stream, "_following", lambda self: read.append(1) or own(self))
    again.taken([0])  # as a trainer does before it is resumed
    again.restore(state)
    read.clear()
    found = [row.number for row in again.taken(range(place, place + 30))]
    assert len(read) <= 7 + 35
    again.restore(state)
    assert values(again, range(place, place + 30)) == expected
    assert found == [row.number for row in first.taken(range(place, place + 30))]


def test_a_state_that_does_not_fit_is_not_used(sets):
    state = opened(sets["tars"], seed=1)
    state.taken([30])
    again, usual = opened(sets["tars"]), opened(sets["tars"])
    for wrong in (state.state(30), None, {}, {"block": 3}):
        again.restore(wrong)
    assert values(again, range(28, 40)) == values(usual, range(28, 40))


def data_of(images, labels, folder, held=0, index=None, **how):
    stream = opened(tars(folder, images, labels), held=held, buffer=10)
    first = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    return StreamData(stream, SHAPE, 0, None, index, lambda x, draw: x.float(), first, **how)


def test_images_are_taken_with_their_labels_by_any_process(tmp_path):
    """A share of a batch is that part of the batch."""
    data = data_of([png(k) for k in range(30)], [k % 3 for k in range(30)], tmp_path, index={0: 0, 1: 1, 2: 2})
    whole = data.take(torch.arange(25), torch.Generator())
    x = whole["x0"][:, 0, 0, 0]
    assert torch.equal(whole["label"], x.long() % 3)
    part = data.take(torch.arange(10, 20), torch.Generator())
    assert torch.equal(part["x0"], whole["x0"][10:20])


def test_a_bad_image_gives_its_place_to_the_next_of_its_block(tmp_path):
    images = [b"nonsense" if k == 4 else png(k) for k in range(10)]
    data = data_of(images, [0] * 10, tmp_path)
    order = [row.number - 1 for row in data.stream.taken(range(10))]
    at = order.index(4)
    with pytest.warns(
        UserWarning, match=r"tar: row 5 is not an image of a known format, .*; such images are left out\.$"
    ):
        x = data.take(torch.arange(10), torch.Generator())["x0"][:, 0, 0, 0].long().tolist()
    assert x == [order[(k + 1) % 10] if k == at else order[k] for k in range(10)]
    assert [*data.bad] == [5]
    alone = data.take(torch.tensor([at]), torch.Generator())["x0"]
    assert int(alone[0, 0, 0, 0]) == x[at]


def test_what_a_stream_can_not_be_is_one_sentence(sets, tmp_path):
    for name, says in {
        f"wds:{tmp_path}/no-*.tar": "has none.",
        f"hf:{tmp_path}/no:stream": "can't be loaded: ",
        sets["tars"] + ":stream=0": "the number after stream= must be at least 1 and at most 1000000; got 0.",
    }.items():
        with pytest.raises(InputError, match=says):
            open_stream(name, "", 0.0, 0)
    with pytest.raises(InputError, match=r"has no column 'kind'; it has '?png"):
        open_stream(sets["tars"], "kind", 0.0, 0)
    with pytest.raises(InputError, match=r"holds 60 images, and its first 60 are held out\.$"):
        opened(sets["tars"], held=60).taken([0])
    draw = torch.Generator()
    for images, labels, how, says in [
        ([png(0), png(1, (5, 4))], [0, 0], {}, r"row 2 is 4 × 5 pixels and the first image 4 × 4; give --size"),
        (
            [png(0), png(1)],
            [0, 7],
            {"index": {0: 0}},
            r"row 2 has the label 7, and the first 10000 have '0'",
        ),
        ([png(0), b"x"], [0, 0], {"on_bad": "fail"}, r"row 2 is not an image of a known format"),
        ([b"x"] * 2, [0, 0], {}, r"none of 10 images in a row can be used"),
    ]:
        folder = tmp_path / says[:12].replace(" ", "")
        folder.mkdir()
        with pytest.raises(InputError, match=says):
            data_of(images, labels, folder, **how).take(torch.arange(10), draw)
