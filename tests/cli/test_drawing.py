"""Samples of one process and of several, at once and in pieces: the same ones, of which little is in memory."""

import json
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest

from ebbtide.cli import drawing, evaluate, sample
from ebbtide.errors import InputError
from ebbtide.metrics import extractors
from ebbtide.training import devices
from ebbtide.training.trained import Trained

ONE_STEP = ("--steps", "1", "--sampler", "euler")
FIELDS = ("value", "low", "high", "floor", "floor_low", "floor_high", "error", "p")


@pytest.fixture
def drawn(monkeypatch):
    """The numbers of samples that are drawn together."""
    counts, own = [], Trained.sample
    monkeypatch.setattr(Trained, "sample", lambda self, n, **how: counts.append(n) or own(self, n, **how))
    return counts


@pytest.fixture
def small_pieces(monkeypatch):
    """Of a chunk each, 1024 digits; and figures of a few."""
    for module, name, value in ((sample, "_PIECE", 1), (sample, "SHOWN", 40), (evaluate, "PIECE", 1)):
        monkeypatch.setattr(module, name, value)


def test_samples_of_images_are_written_in_pieces(ebbtide, runs, tmp_path, drawn, in_two, request):
    """By one process and two: the same file, from pieces that are gone; its figure shows the first ones."""
    words = [runs / "flow-images", "--n", 2100, "--label", "all", *ONE_STEP, "--out"]
    assert ebbtide("sample", *words, "whole.npz", "--no-picture")[0] == 0
    assert drawn == [2100]
    request.getfixturevalue("small_pieces")
    _, _, err = ebbtide("sample", *words, "one.npz")
    assert drawn[1:] == [1024, 1024, 52]
    assert "figure: one.png (the first 40)" in err
    assert in_two(sample.run, [*words, "two.npz", "--no-picture"]) == [(1, 0), 0]
    assert sorted(drawn[4:]) == [52, 1024, 1024]
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert files.keys() == {"whole.npz", "one.npz", "one.png", "two.npz"}
    assert files["one.npz"] == files["two.npz"] == files["whole.npz"]


def test_pieces_that_another_process_wrote_elsewhere_are_missed(runs, tmp_path, monkeypatch, capsys):
    """As where two machines share no disk: nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "process_number", lambda: (0, 2))
    monkeypatch.setattr(devices, "meet", lambda: None)
    monkeypatch.setattr(devices, "gathered", lambda part: [part, part])
    with pytest.raises(InputError, match=r"^x\.npz has 1024 of 2048 samples; all processes must see its folder, \.\.$"):
        sample.run([str(runs / "flow-images"), "--n", "2048", *ONE_STEP, "--out", "x.npz"])
    assert not list(tmp_path.iterdir())


def test_more_than_the_disk_has_left_is_refused(ebbtide, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "disk_usage", lambda folder: namedtuple("Usage", "free")(6000))
    code, _, err = ebbtide("sample", runs / "flow-images", "--n", 64, *ONE_STEP, "--out", "x.npz")
    assert (code, err) == (4, "ebbtide: --n 64 takes up to 8.19 kB; 6 kB are left in ..\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "words"), [("flow-images", ["--n", 1100]), ("flow", ["--n", 300])])
def test_two_processes_evaluate_what_one_evaluates(ebbtide, runs, tmp_path, monkeypatch, drawn, in_two, name, words):
    """Each makes and judges its own samples, whole chunks of a hundred."""
    monkeypatch.setattr(extractors, "_EPOCHS", 1)
    monkeypatch.setattr(Trained, "chunk", 100)
    words = [runs / name, *words, *ONE_STEP]
    assert ebbtide("evaluate", *words)[0] == 0
    one = json.loads((runs / name / "evaluation.json").read_text())
    (runs / name / "evaluation.json").unlink()
    drawn.clear()
    assert in_two(evaluate.run, words) == [(1, 0), 0]
    two = json.loads((runs / name / "evaluation.json").read_text())
    assert sum(drawn) == words[2]
    assert len(drawn) == 2
    assert [row["name"] for row in two] == [row["name"] for row in one]
    for a, b in zip(one, two):
        assert {part: a[part] for part in FIELDS} == pytest.approx(
            {part: b[part] for part in FIELDS}, rel=1e-4, abs=1e-6
        )


@pytest.mark.usefixtures("small_pieces")
def test_pieces_of_an_evaluation_are_small(ebbtide, runs, monkeypatch, drawn):
    monkeypatch.setattr(extractors, "_EPOCHS", 1)
    monkeypatch.setattr(Trained, "chunk", 64)
    assert ebbtide("evaluate", runs / "flow-images", "--n", 200, *ONE_STEP)[0] == 0
    assert drawn == [64, 64, 64, 8]


def test_the_parts_of_processes_are_whole_chunks_and_all_samples():
    _part = drawing._part
    for n, chunk, count in ((1, 4, 2), (8, 4, 2), (9, 4, 2), (100, 7, 3), (5, 2, 8)):
        parts = [_part(n, chunk, rank, count) for rank in range(count)]
        assert [k for part in parts for k in range(part.start, part.stop)] == list(range(n))
        assert all(part.start % chunk == 0 or part.start == n for part in parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flow", ["--n", "5000", "--steps", "3"]),
        (
            "conditional",
            ["--n", "4500", "--label", "all", "--guidance", "2", "--steps", "2", "--sampler", "ddim:eta=1"],
        ),
        ("between", ["--n", "4500", "--steps", "2"]),
        ("flow", ["--n", "5", "--steps", "2"]),  # one chunk: nothing is left for the second process
        ("flow-images", ["--n", "2100", "--label", "all", "--steps", "1", "--out", "SAMPLES.npz"]),
    ],
)
def test_two_processes_draw_what_one_draws(ebbtide, runs, tmp_path, name, words):
    """Each sample is (seed, i) alone, to the bit; one file is written, by one process, and both end well."""
    words = [word.replace("SAMPLES", "one") for word in words]
    words += [] if "--out" in words else ["--out", "one.npz"]
    assert ebbtide("sample", runs / name, *words, "--no-picture")[0] == 0
    two = [word.replace("one.", "two.").replace("--n", "-n") for word in words]  # torchrun takes --n as its own
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "ebbtide", "sample", str(runs / name), *two, "--no-picture"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("samples in") == 1
    one, both = (np.load(tmp_path / f"{file}.npz") for file in ("one", "two"))
    assert one.files == both.files
    for array in one.files:
        np.testing.assert_array_equal(one[array], both[array])


@pytest.mark.slow
def test_torchrun_evaluates_what_one_process_evaluates(ebbtide, runs, tmp_path):
    """The table of the first process, and both end well."""
    words = [str(runs / "flow-images"), *ONE_STEP, "--json"]
    code, one, _ = ebbtide("evaluate", *words, "--n", 2100)
    assert code == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "ebbtide", "evaluate", *words, "-n", "2100"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for a, b in zip(json.loads(one), json.loads(done.stdout), strict=True):
        assert a["name"] == b["name"]
        assert [a[part] for part in FIELDS] == pytest.approx([b[part] for part in FIELDS], rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_what_one_of_two_processes_refuses_ends_both_in_a_sentence(ebbtide, tmp_path):
    """The first looks at the data alone, and the other waits for it."""
    np.savez(tmp_path / "few.npz", images=np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8))
    words = ["--network", "unet-tiny:width=8", "--steps", "2", "--batch", "8", "--snapshots", "0", "--out", "few"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ebbtide"]
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run([*torchrun, "train", "flow-images", "--data", "few.npz", *words], **run)
    assert (done.returncode, done.stderr.count("Trained 2 steps")) == (0, 1), done.stderr
    done = subprocess.run([*torchrun, "evaluate", "few", *ONE_STEP, "-n", "20"], **run)
    assert "ebbtide: A report takes at least" in done.stderr
    assert "[rank" not in done.stderr  # which torch writes before a traceback
