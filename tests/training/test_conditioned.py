"""Samples of images given numbers: by name or as rows, any of them left out, never beyond what was learned."""

import shutil

import numpy as np
import pytest
import torch

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.kinds.runs import from_pretrained, train_recipe
from ebbtide.recipes import flow_images

FEW = {"steps": 2, "sampler": "euler", "grid": "uniform"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    images, ink = rng.integers(0, 256, (40, 4, 4), np.uint8), np.stack([np.linspace(0, 10, 40), np.arange(40) % 2], 1)
    names = np.array(["ink", "odd, = even"])
    np.savez(folder / "set.npz", images=images, ink=ink, attribute_names=names)
    recipe = flow_images(
        data=str(folder / "set.npz"), attributes="ink", attribute_ranges='ink=0:10,"odd, = even=0:1"', steps=4, batch=8,
        network="unet-tiny:width=8",
    )  # fmt: skip
    train_recipe(recipe, folder / "run", progress=False, snapshots=1, checkpoints=1, solvers=False)
    trained = from_pretrained(folder / "run")
    for part in trained.denoiser.parameters():
        part.data.add_(0.05 * torch.randn_like(part))
    return trained


def test_numbers_are_given_by_name_or_as_rows(run):
    assert {name: tuple(ends) for name, ends in run.attributes.items()} == {"ink": (0, 10), "odd, = even": (0, 1)}
    x = run.sample(3, given={"ink": [1, 5, 10], "odd, = even": 1}, **FEW)
    assert torch.equal(run.sample(3, given=torch.tensor([[1.0, 1], [5, 1], [10, 1]]), **FEW), x)
    torch.testing.assert_close(run.sample(1, given={"ink": 1, "odd, = even": 1.0}, **FEW), x[:1], atol=1e-2, rtol=0)
    one = run.sample(3, given={"ink": 5}, **FEW)
    torch.testing.assert_close(run.sample(3, given=np.array([[5, np.nan]]), **FEW), one, atol=1e-2, rtol=0)
    assert not torch.allclose(one, x)
    none = run.sample(3, **FEW)
    torch.testing.assert_close(run.sample(3, given={}, **FEW), none, atol=1e-2, rtol=0)
    assert not torch.allclose(run.sample(3, given={"ink": 5}, guidance=3.0, **FEW), one)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ink": 11}, "given 'ink' must be at least 0 and at most 10, as in the data that was learned; got 11."),
        ({"inc": 1}, "given must be one of ink, odd, = even; got 'inc' (did you mean 'ink'?)."),
        ({"ink": "dark"}, "given 'ink' must be a number; got 'dark'."),
        ({"ink": [1, "x", 2]}, "given 'ink' must hold numbers; got <U21."),
        ({"ink": [1, 2]}, "given 'ink' must be one number or 3; got 2."),
        ("ink", "given must be a tensor or array or a mapping of 'ink', 'odd, = even'; got 'ink'."),
        (torch.zeros(3, 5), "given must be a tensor or array of shape (n, 2); got a tensor of shape (3, 5)."),
    ],
)
@pytest.mark.unchecked
def test_what_was_never_learned_cannot_be_given(run, given, says):
    with pytest.raises(InputError) as caught:
        run.sample(3, given=given)
    assert str(caught.value) == says


def test_a_run_whose_numbers_are_partly_missing_is_saved_resumed_and_drawn_from(tmp_path):
    rng = np.random.default_rng(0)
    ink = np.where(np.arange(40) % 3, np.linspace(0, 10, 40), np.nan)
    np.savez(tmp_path / "set.npz", images=rng.integers(0, 256, (40, 4, 4), np.uint8), ink=ink)
    recipe = flow_images(
        data=str(tmp_path / "set.npz"), attributes="ink", steps=4, batch=8, network="unet-tiny:width=8"
    )
    how = {"progress": False, "snapshots": 0, "solvers": False}
    straight = train_recipe(recipe, tmp_path / "run", checkpoints=2, **how)
    assert straight.attributes == {"ink": (np.float32(ink[1]), np.float32(ink[38]))}
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000004")
    train_recipe(recipe, tmp_path / "run", checkpoints=2, resume=True, **how)
    again = from_pretrained(tmp_path / "run")
    weights = again.denoiser.state_dict()
    assert all(torch.equal(part, weights[name]) for name, part in straight.denoiser.state_dict().items())
    x, other = (again.sample(3, given={"ink": [5, number, 6]}, **FEW) for number in (np.nan, 5))
    assert bool(x.isfinite().all())
    assert not torch.equal(x[1], other[1])
    np.savez(tmp_path / "set.npz", images=rng.integers(0, 256, (40, 4, 4), np.uint8), ink=np.roll(ink, 1))
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000004")
    with pytest.raises(InputError, match="is not what it was when"):
        train_recipe(recipe, tmp_path / "run", checkpoints=2, resume=True, **how)


def test_the_command_and_an_export(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = run.save_pretrained(tmp_path / "shared")
    ask = ("sample", str(folder), "--steps", "2", "--sampler", "euler", "--grid", "uniform", "--n", "3")
    assert main([*ask, "--given", 'ink=5,"odd, = even=1"', "--out", "x.npz"]) == 0
    with np.load("x.npz") as held:
        assert held["images"].shape == (3, 4, 4, 1)
    assert main([*ask, "--given", "ink=50", "--out", "y.npz"]) == 2
    assert main([*ask, "--given", "ink", "--out", "y.npz"]) == 2
