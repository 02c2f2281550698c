"""Images drawn given smaller ones: the user's or held-out ones, each its own, and how near they come."""

import numpy as np
import pytest
import torch
from PIL import Image

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.kinds.fit import fit
from ebbtide.kinds.images.conditions import enlarged, reduced
from ebbtide.kinds.images.data import kept, parts
from ebbtide.kinds.images.super_resolution import AgainstHeld, recorded, shown
from ebbtide.kinds.runs import from_pretrained, train_recipe
from ebbtide.recipes import flow_images, super_resolution

FEW = {"steps": 2, "sampler": "euler", "grid": "uniform"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    recipe = super_resolution(factor=2, steps=4, batch=8, network="unet-tiny:width=8")
    train_recipe(recipe, folder, progress=False, snapshots=1, checkpoints=1, solvers=False)
    trained = from_pretrained(folder)
    for part in trained.denoiser.parameters():  # the last layer starts at 0, and nothing given would count
        part.data.add_(0.05 * torch.randn_like(part))
    return folder, trained


def test_samples_are_drawn_given_held_out_images_by_default(run):
    _, trained = run
    low = recorded(trained, 5, 3, 0)["given"]
    held = {tuple(one) for one in reduced(parts(trained.recipe)[1].x.float(), 2).flatten(1).tolist()}
    assert low.shape == (5, 1, 4, 4)
    assert all(tuple(one) in held for one in low.flatten(1).tolist())
    x = trained.sample(5, seed=3, **FEW)
    assert torch.equal(trained.sample(5, seed=3, given=low, **FEW), x)
    torch.testing.assert_close(trained.sample(2, seed=3, first=2, **FEW), x[2:4], atol=1e-2, rtol=0)
    assert not torch.allclose(trained.sample(5, seed=3, given=low.flip(0), **FEW), x)
    known = torch.full_like(low, torch.nan)
    assert not torch.allclose(trained.sample(5, seed=3, given=known, **FEW), x)
    guided = trained.sample(5, seed=3, given=low, guidance=2.0, **FEW)
    without = trained.sample(5, seed=3, given=known, **FEW)
    assert not torch.allclose(guided, x)
    torch.testing.assert_close(trained.sample(5, seed=3, given=low, guidance=0.0, **FEW), without, atol=1e-2, rtol=0)


def test_what_cannot_be_given_is_one_sentence(run):
    _, trained = run
    for given, says in [
        (torch.zeros(5, 1, 8, 8), "given must be a tensor or array of shape (n, 1, 4, 4); got a tensor of shape"),
        (torch.zeros(3, 1, 4, 4), "given must be one or 5 of finite numbers, NaN where nothing is known; got 3."),
        ({"a": 1}, "given must be a tensor or array; got {'a': 1}."),
    ]:
        with pytest.raises(InputError) as caught:
            trained.sample(5, given=given)
        assert str(caught.value).startswith(says)


def against_held(recipe, x, *cuts):
    """The rows for samples that come in pieces, each to a process of its own."""
    seen = []
    for first, piece in zip((0, *cuts), torch.from_numpy(kept(x)).tensor_split(cuts)):
        one = AgainstHeld(recipe, len(x), 0)
        for at, part in enumerate(piece.split(17)):
            one.look(first + 17 * at, part)
        seen.append(one.seen())
    return {row.name: row for row in AgainstHeld(recipe, len(x), 0).rows(seen)}


def test_the_truth_is_infinitely_near_and_bicubic_as_near_as_it_is(run):
    """Rows of the report on samples that are the truth (58.9 dB, the most), and on bicubic interpolation."""
    _, trained = run
    held = parts(trained.recipe)[1].x
    n = 2 * len(held)
    order = [recorded(trained, 1, 0, k)["given"] for k in range(3)]
    low = recorded(trained, n, 0, 0)["given"]
    assert torch.equal(low[: len(held)], low[len(held) :])
    assert torch.equal(torch.cat(order), low[:3])
    plain = {name: row.value for name, row in against_held(trained.recipe, enlarged(low, 2)).items()}
    assert plain["PSNR of samples"] == plain["PSNR of means"] == pytest.approx(plain["PSNR of bicubic"])
    places = [int((reduced(held.float(), 2) == one).flatten(1).all(1).int().argmax()) for one in low]
    true = {name: row.value for name, row in against_held(trained.recipe, held[places].float()).items()}
    assert true["PSNR made small"] == pytest.approx(58.9, abs=0.1)
    assert true["PSNR of samples"] > plain["PSNR of samples"] + 10


def test_pieces_and_processes_change_nothing(run):
    """Three samples of some held-out images and two of the others, to three processes, the last of which gets none."""
    _, trained = run
    n = 2 * len(parts(trained.recipe)[1].x) + 30
    x = 255 * torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    whole, cut = against_held(trained.recipe, x), against_held(trained.recipe, x, 200, n)
    assert [*whole] == ["PSNR of samples", "PSNR of means", "PSNR of bicubic", "PSNR made small"]
    assert whole["PSNR of means"].value > whole["PSNR of samples"].high
    for name, row in whole.items():
        assert cut[name].note == row.note
        for one, other in zip((cut[name].value, cut[name].low), (row.value, row.low)):
            assert one == pytest.approx(other, rel=1e-6), name


@pytest.mark.slow  # sixteen draws of each image in 50 steps
def test_the_figures_rows(run):
    _, trained = run
    rows = shown(trained, columns=3, draws=2)
    assert [*rows] == ["given", "bicubic", "sample 1", "sample 2", "mean of 16", "truth"]
    assert {part.shape for part in rows.values()} == {(3, 1, 8, 8)}


def test_the_command_enlarges_a_folder_an_npz_and_a_file(run, tmp_path, monkeypatch):
    folder, _ = run
    monkeypatch.chdir(tmp_path)
    low = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1), np.uint8)
    np.savez("low.npz", images=low)
    Image.fromarray(low[1, :, :, 0]).save("one.png")
    ask = ("sample", str(folder), "--steps", "2", "--sampler", "euler", "--grid", "uniform")
    assert main([*ask, "--given", "low.npz", "--out", "x.npz"]) == 0
    assert main([*ask, "--given", "one.png", "--n", "2", "--out", "y.npz"]) == 0
    with np.load("x.npz") as x, np.load("y.npz") as y:
        assert x["images"].shape == (3, 8, 8, 1)
        assert y["images"].shape == (2, 8, 8, 1)
    assert main([*ask, "--given", "low.npz", "--n", "2", "--out", "z.npz"]) == 2


def test_images_in_memory_are_learned_too(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
    recipe = super_resolution(factor=2, steps=2, batch=8, network="unet-tiny:width=8", sample_steps=2)
    trained = fit(recipe, x, out=tmp_path / "run", progress=False, solvers=False)
    low = torch.zeros(3, 1, 4, 4)
    assert trained.sample(3, given=low, **FEW).shape == trained.sample(3, **FEW).shape == (3, 1, 8, 8)


def test_a_run_without_takes_nothing(tmp_path):
    recipe = flow_images(steps=1, batch=4, network="unet-tiny:width=8")
    trained = train_recipe(recipe, tmp_path / "run", progress=False, snapshots=0, solvers=False)
    with pytest.raises(InputError, match=r"^This run draws images given nothing: train one with "):
        trained.sample(2, given=torch.zeros(2, 1, 4, 4))


def test_a_factor_must_divide_the_sides(tmp_path):
    with pytest.raises(InputError, match=r"^factor 3 must divide the images' sides, 8 × 8; give another, or --size\.$"):
        train_recipe(super_resolution(factor=3, steps=1), tmp_path / "run", progress=False)
