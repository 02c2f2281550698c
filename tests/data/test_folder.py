"""A folder: what is found in it, in which order, and what is said of the rest."""

import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from ebbtide.data.images import load_images, split_images
from ebbtide.errors import InputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path_factory.mktemp("cache")))


def put(folder, name, value=0, size=(4, 4), mode="L", kind="png"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, kind)
    return path


def filled(folder, n=60, **options):
    """So many good ones that a few bad ones are no more than 5 %."""
    for k in range(n):
        put(folder, f"good/{k:03d}.png", k, **options)
    return folder


def get(folder, **options):
    return load_images(str(folder), progress=False, **options)


def test_sorted_and_in_depth(tmp_path):
    for value, name in enumerate(["A.png", "a/a.png", "a/b/c/d.png", "a/z.png", "a-b/a.png", "b.jpg", "no_ending"]):
        put(tmp_path, name, 10 * value, kind="bmp")
    found = get(tmp_path)
    assert found.x[:, 0, 0, 0].tolist() == list(range(0, 70, 10))
    assert found.labels is None
    assert found.bad == ()


def test_values_of_12_bits_in_files_of_16(tmp_path):
    """Twenty images, each with its own part of the values, as microscopes and depth cameras write them."""
    values = np.random.default_rng(0).permutation(4096)[:2000].reshape(20, 10, 10).astype(np.uint16)
    for k, picture in enumerate(values):
        Image.fromarray(picture).save(tmp_path / f"{k:02d}.png")
    low, high = int(values.min()), int(values.max())
    with pytest.warns(UserWarning, match=f"20 of 20 images have more than 8 bits: their values {low} to {high} become"):
        found = get(tmp_path)
    assert found.levels == (low, high)
    assert len(found.x.unique()) == 256
    assert found.x[:, 0].tolist() == np.rint((values.astype(float) - low) / (high - low) * 255).tolist()
    put(tmp_path, "8 bits.png", 77, (10, 10))
    with pytest.warns(UserWarning, match="20 of 21 images have more than 8 bits"):
        both = get(tmp_path)
    assert both.x[:20].tolist() == found.x.tolist()
    assert both.x[20].unique().tolist() == [77]


def test_what_is_not_a_number_is_a_bad_picture(tmp_path):
    """It is named as any other, and has no say in the range."""
    for k in range(40):
        depth = np.full((4, 4), k / 10, np.float32)
        if k in (7, 30):
            depth[1, 2] = (np.nan, np.inf)[k == 30]
        Image.fromarray(depth).save(tmp_path / f"{k:02d}.tiff")
    with pytest.warns(UserWarning, match="38 of 38 images .* their values 0 to 3.9 become"):
        found = get(tmp_path)
    assert found.bad == tuple(f"{k:02d}.tiff holds 1 of 16 values that are not finite" for k in (7, 30))
    assert found.x[-1].unique().tolist() == [255]
    with pytest.raises(InputError, match=r"07\.tiff holds 1 of 16 values that are not finite\.$"):
        get(tmp_path, on_bad="fail")


IGNORED = [
    ".hidden.png", ".git/a.png", "a/.DS_Store", "Thumbs.db", "desktop.ini", "labels.csv", "README.md", "LICENSE",
    "__MACOSX/a.png", "meta.JSON", "archive.zip", "a.npz", "film.mp4", "download.py",
]  # fmt: skip


def test_what_is_plainly_no_picture_is_ignored(tmp_path):
    put(tmp_path, "only.png", 5)
    for name in IGNORED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"anything")
    found = get(tmp_path, on_bad="fail")
    assert found.x.shape == (1, 1, 4, 4)
    assert found.bad == ()


def test_an_empty_folder(tmp_path):
    for fill in (lambda: None, lambda: (tmp_path / "sub").mkdir(), lambda: (tmp_path / "a.txt").write_text("a")):
        fill()
        with pytest.raises(InputError, match=r"^\S+ holds no images\.$"):
            get(tmp_path)


def make_loop(folder):
    (folder / "loop.png").symlink_to("loop.png")


def make_ring(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "ring").symlink_to(folder)


def make_socket(folder):
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(folder)  # the address of a socket is short
        try:
            listening.bind("socket.png")
        finally:
            os.chdir(here)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:f1e5\nsize 129\n"
SPOILT = {
    "an empty file": (lambda d: (d / "a.png").touch(), "a.png is empty"),
    "a pointer": (lambda d: (d / "a.jpg").write_text(LFS), "a.jpg is a pointer of Git LFS and not the file itself"),
    "text": (lambda d: (d / "a.jpg").write_text("hello"), "a.jpg is not an image of a known format"),
    "text without an ending": (lambda d: (d / "a").write_text("hello"), "a is not an image of a known format"),
    "cut short": (
        lambda d: (d / "a.png").write_bytes(put(d, "good/000.png").read_bytes()[:-20]),
        "a.png can't be decoded: ",
    ),
    "a link to nothing": (
        lambda d: (d / "a.png").symlink_to("none.png"),
        "a.png can't be found: No such file or directory",
    ),
    "a link to itself": (make_loop, "loop.png can't be found: Too many levels of symbolic links"),
    "a link to the folder": (make_ring, "sub/ring is a link to a folder it lies in"),
    "a pipe": (lambda d: os.mkfifo(d / "a.png"), "a.png is neither a file nor a folder"),
    "a socket": (make_socket, "socket.png is neither a file nor a folder"),
    "a device": (lambda d: (d / "a.png").symlink_to(os.devnull), "a.png is neither a file nor a folder"),
    "a line break in its name": (lambda d: (d / "a\nb.png").touch(), "a\\nb.png is empty"),
    "a name that moves the cursor": (lambda d: (d / "a\x1b[2J.png").touch(), "a\\x1b[2J.png is empty"),
    "a name that is no text": (lambda d: os.mknod(os.fsencode(d) + b"/\xff.png"), "\\udcff.png is empty"),
}


@pytest.mark.parametrize(("spoil", "line"), SPOILT.values(), ids=SPOILT)
def test_what_cannot_be_used_is_named(tmp_path, spoil, line, capfd):
    spoil(filled(tmp_path))
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(UserWarning, match="1 of 61 images can't be used and are left out: ") as said:
            found = get(tmp_path)
        assert len(said) == len(found.bad) == 1
        assert str(said[0].message).endswith(f": {found.bad[0]}.")
        assert str(said[0].message).isprintable()
        assert found.bad[0].startswith(line)
        assert found.bad[0].isprintable()
        assert found.x[:, 0, 0, 0].tolist() == list(range(60))
    with pytest.raises(InputError) as error:
        get(tmp_path, on_bad="fail")
    assert found.bad[0] in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_folders_and_links_to_pictures_are_fine(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    put(elsewhere, "one.png", 1)
    put(elsewhere, "two.png", 2)
    data = tmp_path / "data"
    put(data, "a.png/real.png", 3)  # a folder with the name of a file
    (data / "b.png").symlink_to(elsewhere / "one.png")
    (data / "c").symlink_to(elsewhere)
    (data / "d").symlink_to(elsewhere)  # the same folder twice is no ring
    found = get(data)
    assert found.x[:, 0, 0, 0].tolist() == [3, 1, 1, 2, 1, 2]
    assert found.bad == ()
    (tmp_path / "link").symlink_to(data)
    assert torch.equal(get(tmp_path / "link").x, found.x)


def test_a_folder_that_cannot_be_searched(tmp_path, monkeypatch):
    filled(tmp_path)
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).rstrip("/").endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert get(tmp_path).bad == ("closed/ can't be searched: Permission denied",)
    with pytest.raises(InputError, match=r"closed can't be read: Permission denied\.$"):
        get(tmp_path / "closed")


def test_too_many_bad_ones(tmp_path):
    filled(tmp_path, 20)
    for k in range(4):
        (tmp_path / f"bad{k}.png").touch()
    with pytest.raises(InputError) as error:
        get(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: 4 of 24 images can't be used, more than 5%: "
        "bad0.png is empty; bad1.png is empty; bad2.png is empty; and 1 more."
    )


def test_unlike_pictures(tmp_path):
    put(tmp_path, "a.png", size=(4, 4))
    put(tmp_path, "b.png", size=(6, 5))
    with pytest.raises(InputError, match=r"a\.png is 4 × 4 pixels and b\.png 6 × 5; give --size"):
        get(tmp_path)
    assert get(tmp_path, size=8).x.shape == (2, 1, 8, 8)


def test_grey_beside_colour(tmp_path):
    put(tmp_path, "a.png", 7)
    assert get(tmp_path).x.shape == (1, 1, 4, 4)
    assert get(tmp_path, channels=3).x.tolist() == [[[[7] * 4] * 4] * 3]
    put(tmp_path, "b.png", (1, 2, 3), mode="RGB")
    assert get(tmp_path).x[:, :, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]
    assert get(tmp_path, channels=1).x[:, :, 0, 0].tolist() == [[7], [2]]


def test_labels_from_folders(tmp_path):
    for value, name in enumerate(["cat/x/b.png", "cat/a.png", "ant/a.png", "dog/cat/a.png"]):
        put(tmp_path, name, value)
    (tmp_path / "empty").mkdir()
    found = get(tmp_path, label="folder")
    assert found.classes == ("ant", "cat", "dog")
    assert found.labels.dtype == torch.int64
    pairs = dict(zip(found.x[:, 0, 0, 0].tolist(), found.labels.tolist()))
    assert pairs == {0: 1, 1: 1, 2: 0, 3: 2}
    assert get(tmp_path).labels is None
    with pytest.raises(InputError, match=r"'folder' or nothing; got 'class'"):
        get(tmp_path, label="class")
    put(tmp_path, "loose.png")
    with pytest.raises(InputError, match=r"needs each image in a sub-folder, and loose\.png is in none"):
        get(tmp_path, label="folder")


def test_numbered_folders_count(tmp_path):
    for k in (10, 9, 1):
        put(tmp_path, f"{k}/a.png", k)
    found = get(tmp_path, label="folder")
    assert found.classes == ("1", "9", "10")
    assert found.labels.tolist() == [{"1": 0, "9": 1, "10": 2}[str(k)] for k in found.x[:, 0, 0, 0].tolist()]


IN_PARTS = {  # files → those to train on, those held out, and their classes
    "cat and dog below": (
        ["test/dog/a", "train/cat/b", "train/dog/c", "val/cat/d"],
        ["train/cat/b", "train/dog/c"], ["test/dog/a", "val/cat/d"], "cat dog dog cat",
    ),
    "cat and dog above": (
        ["cat/test/a", "cat/train/b", "dog/train/c", "dog/test/d"],
        ["cat/train/b", "dog/train/c"], ["cat/test/a", "dog/test/d"], "cat dog cat dog",
    ),
    "in one folder": (
        ["pets/Train/cat/a", "pets/Test/dog/b", "pets/Train/dog/c"],
        ["pets/Train/cat/a", "pets/Train/dog/c"], ["pets/Test/dog/b"], "cat dog dog",
    ),
    "a folder in itself": (
        ["seg_train/seg_train/cat/a", "seg_train/seg_train/dog/b", "seg_test/seg_test/dog/c", "seg_pred/seg_pred/d"],
        ["seg_train/seg_train/cat/a", "seg_train/seg_train/dog/b"], ["seg_test/seg_test/dog/c"], "cat dog dog",
    ),
    "a test part without classes": (
        ["test/a", "train/cat/b", "train/dog/c"], ["train/cat/b", "train/dog/c"], ["test/a"], "cat dog -",
    ),
    "a class never trained": (
        ["test/emu/a", "test/cat/b", "train/cat/c", "train/dog/x/d"],
        ["train/cat/c", "train/dog/x/d"], ["test/cat/b", "test/emu/a"], "cat dog cat -",
    ),
    "a training part alone": (["train/cat/a", "train/dog/b"], ["train/cat/a", "train/dog/b"], [], "cat dog"),
    "others and a loose one beside": (
        ["a", "train/cat/b", "unlabeled/cat/c", "valid/cat/d"], ["train/cat/b"], ["valid/cat/d"], "cat cat",
    ),
    "no parts": (["bus/a", "train/b"], ["bus/a", "train/b"], [], "bus train"),
    "a class called test": (["cat/a", "dog/b", "test/c"], ["cat/a", "dog/b", "test/c"], [], "cat dog test"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "train", "held", "classes"), IN_PARTS.values(), ids=IN_PARTS)
def test_parts_of_a_set(tmp_path, files, train, held, classes):
    for value, name in enumerate(files):
        put(tmp_path, name, value)
    for label in ("", "folder"):
        found = get(tmp_path, label=label)
        first, second = split_images(found, 0.0)
        assert [files[value] for value in first.x[:, 0, 0, 0].tolist()] == train
        assert [files[value] for value in second.x[:, 0, 0, 0].tolist()] == held
        assert found.test == len(held)
    assert [found.classes[k] if k >= 0 else "-" for k in found.labels.tolist()] == classes.split()
    assert set(found.classes) == set(classes.split()[: len(train)])


def test_a_bad_one_in_a_held_out_part(tmp_path):
    filled(tmp_path / "train", 30)
    filled(tmp_path / "test", 30)
    (tmp_path / "test" / "good" / "005.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=re.escape(str(tmp_path))) as said:
        found = get(tmp_path)
    assert [str(line.message) for line in said] == [
        f"{tmp_path}: 30 images to train on ('train'), 30 held out ('test').",
        f"{tmp_path}: 1 of 60 images can't be used and are left out: test/good/005.png is empty.",
    ]
    assert (len(found.x), found.test) == (59, 29)


def test_labels_stay_with_their_pictures(tmp_path):
    """Also past a bad one, which takes its class along if it is the only one of it."""
    for k in range(60):
        put(tmp_path, f"{'ab'[k % 2]}/{k:02d}.png", k)
    (tmp_path / "a" / "04.png").write_bytes(b"")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.png").write_bytes(b"")
    for _ in range(2):
        found = get(tmp_path, label="folder")
        assert found.classes == ("a", "b")
        assert found.labels.tolist() == [k % 2 for k in found.x[:, 0, 0, 0].tolist()]
        assert found.bad == ("a/04.png is empty", "c/a.png is empty")


def test_a_change_is_seen(tmp_path):
    """A new file, one gone, one of another size or time: the cache doesn't hide it."""
    filled(tmp_path, 3)
    assert get(tmp_path).x[:, 0, 0, 0].tolist() == [0, 1, 2]
    put(tmp_path, "good/001.png", 9)
    assert get(tmp_path).x[:, 0, 0, 0].tolist() == [0, 9, 2]
    path = put(tmp_path, "good/003.png", 3)
    assert get(tmp_path).x[:, 0, 0, 0].tolist() == [0, 9, 2, 3]
    path.rename(tmp_path / "good" / "000a.png")
    assert get(tmp_path).x[:, 0, 0, 0].tolist() == [0, 3, 9, 2]
    (tmp_path / "good" / "000.png").unlink()
    assert get(tmp_path).x[:, 0, 0, 0].tolist() == [3, 9, 2]


def test_loading_from_several_threads(tmp_path):
    filled(tmp_path, 30)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: get(tmp_path), range(8)):
            assert found.x[:, 0, 0, 0].tolist() == list(range(30))


def test_a_thousand_photos_are_quick_the_second_time(tmp_path):
    """The limit is generous: it takes 0.03 s."""
    photo = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "0.png")
    for k in range(1, 1000):
        os.link(tmp_path / "0.png", tmp_path / f"{k}.png")
    first = get(tmp_path, size=64)
    start = time.perf_counter()
    second = get(tmp_path, size=64)
    assert time.perf_counter() - start < 0.5
    assert torch.equal(first.x, second.x)
