"""What memory is free, and that no small file takes gigabytes of it.

The files that claim much are read in a process that may take 1.5 GiB: who allocates what a file claims fails there.
"""

import gzip
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ebbtide import memory
from ebbtide.cli.drawing import Drawing, draw
from ebbtide.data import images
from ebbtide.errors import InputError
from ebbtide.kinds.images.kind import IMAGES
from ebbtide.kinds.runs import from_pretrained
from ebbtide.recipes import ImageRecipe
from ebbtide.training import checkpoint
from ebbtide.training.build import build_denoiser
from ebbtide.training.trained import Trained

GIB = 2**30


# --- what is free -------------------------------------------------------------------------------------------


def test_what_needs_more_than_a_share_of_what_is_free_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 10.0 * GIB)
    memory.room(8 * GIB, "a.csv")
    monkeypatch.setattr(memory, "available", lambda: 0.0)
    memory.room(memory.TRIFLE, "a.csv")
    monkeypatch.setattr(memory, "available", lambda: 10.0 * GIB)
    with pytest.raises(InputError) as refused:
        memory.room(8 * GIB + 1, "a.csv", "take fewer rows")
    assert str(refused.value) == (
        "a.csv would take about 8 GiB of memory; 10 GiB are free, of which 80% may be used; take fewer rows."
    )


def test_what_is_free_is_less_than_the_machine_has():
    assert 2**24 < memory.available() < psutil.virtual_memory().total


def group(folder, files, **stat):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in stat.items()))


@pytest.mark.parametrize(
    ("own", "top", "most", "used"),
    [
        ("0::/a/b\n", "", "memory.max", "memory.current"),
        ("1:cpu:/x\n4:memory:/a/b\n0::/\n", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        ("4:cpu,memory:/a/b\n", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ],
)
@pytest.mark.parametrize("place", ["", "a", "a/b"])
def test_a_containers_limit_counts_wherever_it_is_set(tmp_path, monkeypatch, own, top, most, used, place):
    """100 MB of 300, 20 of which are files' pages, leave 220; in a container the group's own folder may be the top."""
    (tmp_path / "own").write_text(own)
    groups = tmp_path / "cgroup"
    group(groups / top / "a/b", {most: "max\n", used: "1\n"})
    group(
        groups / top / place,
        {most: "300000000\n", used: "100000000\n"},
        inactive_file=15_000_000,
        active_file=5_000_000,
    )
    monkeypatch.setattr(memory, "_OWN", tmp_path / "own")
    monkeypatch.setattr(memory, "_GROUPS", groups)
    assert memory.available() == 220_000_000


def test_of_an_older_group_the_pages_of_those_in_it_count(tmp_path):
    files = {"memory.limit_in_bytes": "300\n", "memory.usage_in_bytes": "100\n"}
    group(tmp_path, files, inactive_file=1, total_inactive_file=15, total_active_file=5)
    assert memory._left(tmp_path) == 220


def test_without_groups_the_machine_is_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_OWN", tmp_path / "none")
    assert memory.available() > 2**24


# --- small files that claim much ----------------------------------------------------------------------------


def deflated(start: bytes, zeros: int, form: int) -> bytes:
    """`start` and so many zeros, packed without ever being unpacked here."""
    packer, block = zlib.compressobj(wbits=form), 2**22
    data = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    zero = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    return data + zero * (zeros // block) + packer.flush()


def head(shape: tuple[int, ...], dtype: str) -> bytes:
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"


def zipped(path, members: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """An .npz of arrays of zeros; its sums are wrong, which shows only at their ends."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, (shape, dtype) in members.items():
            start, zeros = head(shape, dtype), int(np.prod(shape)) * np.dtype(dtype).itemsize
            if zeros < 2**22:
                archive.writestr(f"{name}.npy", start + bytes(zeros))
                continue
            info = zipfile.ZipInfo(f"{name}.npy")
            data = deflated(start, zeros, -15)
            archive.writestr(info, data)
            info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, len(start) + zeros


def trained(folder, **changes) -> None:
    recipe = ImageRecipe(network="unet-tiny", size=8)
    run = Trained(build_denoiser(recipe, (1, 8, 8), 0).eval(), recipe, (1, 8, 8))
    files = run.files()
    config = json.loads(files["config.json"]) | {"codec": {"name": "pixels"}} | changes
    checkpoint.write_folder(folder, files | {"config.json": json.dumps(config).encode()})


def sparse(path, size: int, start: bytes = b"") -> None:
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(size)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that claim 2 GiB and more, each of a few MB."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("claims")
    much = {"x": ((2**28, 1), "<f8")}
    zipped(folder / "table.npz", much)
    zipped(folder / "beside.npz", {"x": ((50, 2), "<f8"), "other": ((2**28,), "<f8")})
    zipped(folder / "images.npz", {"images": ((2**15, 256, 256), "|u1")})
    zipped(folder / "labels.npz", {"images": ((2**15, 1, 1), "|u1"), "labels": ((2**15,), "<U16384")})
    steps = {"state": ((2**15, 1), "<f4"), "action": ((2**15, 1), "<f4")}
    zipped(folder / "episodes.npz", steps | {"camera": ((2**15, 256, 256, 3), "|u1")})
    with zipfile.ZipFile(folder / "episodes.npz", "a") as archive:
        archive.writestr("episode_ends.npy", head((1,), "<i8") + struct.pack("<q", 2**15))
    sparse(folder / "table.npy", 2**31 + 200, head((2**28,), "<f8"))
    sparse(folder / "table.csv", 10**8)
    (folder / "wide.csv").write_text(",".join(f"c{k}" for k in range(200_000)) + "\n" + "1," * 199_999 + "1\n")
    pixels = struct.pack(">4B3I", 0, 0, 8, 3, 2**15, 256, 256)
    (folder / "honest.gz").write_bytes(deflated(pixels, 2**31, 31))
    pixels = struct.pack(">4B3I", 0, 0, 8, 3, 2, 2, 2)
    (folder / "endless.gz").write_bytes(deflated(pixels, 2**31, 31))
    (folder / "lying.gz").write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 2**15, 2**15, 2**15) + bytes(99)))
    (folder / "pictures").mkdir()
    Image.new("1", (13_000, 13_000)).save(folder / "pictures/large.png")
    rows = arrow.table({"n": np.zeros(2**20, np.int64)})
    with parquet.ParquetWriter(folder / "numbers.parquet", rows.schema) as writer:
        for _ in range(64):
            writer.write_table(rows)
    cells = arrow.DictionaryArray.from_arrays(np.zeros(1000, np.int32), [bytes(2**22)])
    parquet.write_table(arrow.table({"cell": cells}), folder / "cells.parquet", store_schema=False)
    trained(folder / "large", shape=[1, 20_000, 20_000])
    trained(folder / "sparse")
    weights = (folder / "sparse/model.safetensors").stat().st_size
    sparse(folder / "sparse/model.safetensors", 2**31, b"")
    assert weights < 2**22
    (folder / "unet").mkdir()
    (folder / "unet/config.json").write_text(json.dumps({"sample_size": 8, "block_out_channels": [32_768] * 4}))
    save_file({"conv_in.weight": torch.zeros(1)}, folder / "unet/diffusion_pytorch_model.safetensors")
    sizes = [(Path(place) / name) for place, _, names in os.walk(folder) for name in names]
    assert sum(file.stat().st_blocks * 512 for file in sizes) < 2**26
    return folder


READ = {
    "table.npz": "read(path)",
    "table.npy": "read(path)",
    "images.npz": "images.load_images(path, progress=False)",
    "labels.npz": "images.load_images(path, progress=False)",
    "episodes.npz": "source.load_episodes(path, ('camera',))",
    "honest.gz": "images.load_images(path, progress=False)",
    "pictures": "images.load_images(path, cache=False, progress=False)",
    "numbers.parquet": "files._parquet(Path(path), ['n'])",
    "large": "from_pretrained(path)",
    "sparse": "from_pretrained(path)",
}
SOUND = {
    "table.csv": ("read(path)", "row 1: a null byte, so it is no text."),
    "beside.npz": ("len(read(path).x)", "50"),
    "wide.csv": ("read(path)", "wide.csv has 200,000 columns; at most 65,536 are read."),
    "endless.gz": ("images.load_images(path)", "[2, 2, 2] takes 24 bytes and it has more."),
    "lying.gz": ("images.load_images(path)", "is damaged or cut short"),
    "cells.parquet": ("sum(len(cell.as_py()) for cell in files.cells_of(Path(path), 'cell')) / 1000", "4194304.0"),
    "unet": ("unet.load_unet(path)", "unlike its config"),
}
PROGRAM = """
import json, resource, sys
from pathlib import Path
import psutil, pyarrow.parquet
from ebbtide.data import images, read
from ebbtide.kinds.robots import source
from ebbtide.interop import unet
from ebbtide.interop.lerobot import files
from ebbtide.kinds.runs import from_pretrained
folder, asked = sys.argv[1], json.loads(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 3 * 2**29, resource.RLIM_INFINITY))
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = most()
found, grown = {}, {}
for name, code in asked.items():
    path = f"{folder}/{name}"
    try:
        found[name] = str(eval(code))
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
    grown[name] = most() - before
print(json.dumps([found, grown]))
"""


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="limits of a process are Linux's")
def test_no_small_file_takes_gigabytes(folder):
    asked = READ | {name: code for name, (code, _) in SOUND.items()}
    command = [sys.executable, "-c", PROGRAM, str(folder), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"MALLOC_ARENA_MAX": "1"})
    assert not done.returncode, done.stderr
    found, grown = json.loads(done.stdout)
    for name in READ:
        assert found[name].startswith("InputError: "), (name, found[name])
        assert str(folder / name) in found[name]
        assert "would take about" in found[name], (name, found[name])
        assert "GiB are free" in found[name]
    for name, (_, words) in SOUND.items():
        assert words in found[name], (name, found[name])
    assert max(grown.values()) < 0.3 * GIB, grown


def test_a_large_shape_is_loaded_without_being_made(folder, monkeypatch):
    """Where there is room for its samples: 20 000 × 20 000 numbers would be 1.6 GB."""
    monkeypatch.setattr(memory, "available", lambda: 1e15)
    before = psutil.Process().memory_info().rss
    assert from_pretrained(folder / "large").shape == (1, 20_000, 20_000)
    assert psutil.Process().memory_info().rss - before < 2**27


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (41_472, "41.5 kB"), (999_700, "1 MB"), (3 * 10**9, "3 GB"),
     (25 * 10**11, "2.5 TB")],
)  # fmt: skip
def test_sizes_are_three_digits_and_a_unit(size, text):
    assert memory.in_bytes(size) == text


# --- what many have, on a machine that many have --------------------------------------------------------------------


def test_usual_numbers_of_samples_fit_into_a_laptop(monkeypatch):
    """As many as MNIST has, those of a Fréchet distance, and the 1000 that are measured unless told."""
    monkeypatch.setattr(memory, "available", lambda: 6.0 * GIB)
    monkeypatch.setattr(Trained, "sample", lambda self, n, **_: torch.zeros(1, 1))
    recipe = ImageRecipe(network="unet-tiny", size=8)
    run = Trained(build_denoiser(recipe, (1, 8, 8), 0), recipe, (1, 8, 8))
    for n, shape, more in [
        (60_000, (1, 28, 28), 1),
        (50_000, (3, 32, 32), 1),
        (10_000, (3, 32, 32), IMAGES.more),
        (1000, (3, 160, 160), IMAGES.more),
    ]:
        draw(replace(run, shape=shape), Drawing(n=n), more)
    with pytest.raises(InputError, match="--n 1000000 would take about"):
        draw(run, Drawing(n=10**6))


def test_pictures_of_an_array_fit_where_their_copies_do(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", images=np.zeros((1000, 28, 28), np.uint8))
    for copies, fits in ((3.01, True), (2.99, False)):
        monkeypatch.setattr(memory, "available", lambda copies=copies: copies * 784_000 / memory.SHARE)
        if fits:
            assert len(images.load_images(str(tmp_path / "x.npz"), progress=False).x) == 1000
        else:
            with pytest.raises(InputError, match="would take about"):
                images.load_images(str(tmp_path / "x.npz"), progress=False)
