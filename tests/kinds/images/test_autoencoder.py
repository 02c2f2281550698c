"""An autoencoder from end to end: a run that begins as the patches' codec, and a flow in its latent."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import ebbtide
from ebbtide import cli
from ebbtide.codecs import fit_codec
from ebbtide.errors import InputError
from ebbtide.kinds.images import pages
from ebbtide.kinds.images.data import parts, prepare
from ebbtide.kinds.images.kind import finish
from ebbtide.kinds.runs import begin, from_pretrained
from ebbtide.plots import strips
from ebbtide.recipes import RECIPES
from ebbtide.training.run import untrained
from training.runs import assert_same, run, run_until, tensors

NETWORK = "autoencoder:size=2,keep=2,widths=16-32"


def recipe(**changes):
    return replace(RECIPES["autoencoder"](), **{"network": NETWORK, "steps": 8, "batch": 16, "held_out": 0.3} | changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a few steps, and its folder."""
    folder = tmp_path_factory.mktemp("autoencoder") / "AE"
    return run(recipe(steps=30), folder, snapshots=2), folder


def test_step_0_is_the_codec_of_patches_to_the_bit():
    start, _ = begin(recipe(flip=False))
    train, held = parts(start.recipe)
    codec = fit_codec("pixels+patches:size=2,keep=2,whiten=0.25", lambda: train.x.split(256))
    x = held.x.float()
    network = start.denoiser.network
    assert torch.equal(network.encode(start.to_network(x)), codec.encode(x))
    assert torch.equal(start.reconstruct(x), codec.decode(codec.encode(x)))


def test_it_begins_at_the_same_numbers_whether_images_are_mirrored_or_not():
    plain, mirrored = (untrained(one, prepare(one)).denoiser.network for one in (recipe(flip=False), recipe()))
    torch.testing.assert_close(plain.basis.abs(), mirrored.basis.abs(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain.scale, mirrored.scale)


def test_it_learns(trained):
    start, _ = begin(recipe())
    held = parts(start.recipe)[1].x.float()
    error = lambda run: (run.reconstruct(held) - held).square().mean().item()
    assert error(trained[0]) < 0.97 * error(start)


def test_it_resumes_bit_exactly(tmp_path, monkeypatch):
    whole, part = tmp_path / "whole", tmp_path / "part"
    run(recipe(), whole)
    run_until(5, recipe(), part, monkeypatch)
    run(recipe(), part, resume=True)
    assert_same(tensors(whole), tensors(part))


def test_snapshots_show_images_and_what_became_of_them(trained):
    run, folder = trained
    last = sorted((folder / "evolution").glob("*.npy"))[-1]
    shown = torch.from_numpy(np.load(last)).float()
    real, made = shown[::2], shown[1::2]
    train = parts(run.recipe)[0].x.float()
    both = torch.cat([train, train.flip(3)])
    assert torch.cdist(real.flatten(1), both.flatten(1)).min(1).values.max() == 0
    torch.testing.assert_close(made, run.reconstruct(real).round().clamp(0, 255))


def test_it_has_no_samples_and_its_loss_needs_a_codec(trained, tmp_path):
    with pytest.raises(InputError, match="This run is an autoencoder: it has no samples"):
        trained[0].sample(2)
    with pytest.raises(InputError, match="This run is an autoencoder: it has no samples"):
        next(trained[0].trajectory(2))
    with pytest.raises(InputError, match="needs a network that encodes and decodes"):
        run(recipe(network="unet-tiny"), tmp_path / "unet")
    with pytest.raises(InputError, match="takes no classes"):
        run(recipe(conditional=True), tmp_path / "conditional")


def test_what_other_commands_make_of_it(trained, tmp_path):
    cli.main(["plot", str(trained[1]), "--out", str(tmp_path / "figures")])
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["codec.png", "losses.png", "training.png"]
    card = (trained[0].save_pretrained(tmp_path / "export") / "README.md").read_text()
    assert "# Autoencoder" in card
    assert "codec='pixels+autoencoder:run=export'" in card
    assert "sample" not in card
    with pytest.raises(InputError, match="it has no samples"):
        ebbtide.distill(trained[1], tmp_path / "student")


def test_evaluate_prints_codec_psnr_and_kid(trained, capsys):
    cli.main(["evaluate", str(trained[1])])
    table = capsys.readouterr().out
    assert "codec PSNR" in table
    assert "codec KID-classifier" in table
    assert (trained[1] / "evaluation.json").exists()


def test_its_strip_over_training_says_what_it_shows(trained, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(strips, "sheet", lambda *given, **told: said.append(told) or SimpleNamespace(figure=Figure()))
    monkeypatch.setattr(pages.style, "save", lambda figure, path: None)
    assert [path.name for path in finish(trained[1], trained[0])] == ["training.png"]
    assert (said[0]["title"], "noise" in said[0]["note"].lower()) == ("Reconstructions over training", False)


def test_a_flow_takes_a_sharpened_decoder_in_an_export(trained, tmp_path, capsys):
    """The files of the export decode as the sharpened run does; a run in pixels has no decoder to replace."""
    ae, flow = tmp_path / "AE", tmp_path / "flow"
    shutil.copytree(trained[1], ae)
    run(recipe(steps=2, loss="sharpen:after=0", init=str(ae)), tmp_path / "SHARP")
    small = {"network": "unet:width=8,multipliers=1-1,attention=0-0,groups=4", "steps": 2, "batch": 8, "held_out": 0.3}
    made = run(ebbtide.flow_latents(**small, codec=f"pixels+autoencoder:run={ae}"), flow, solvers=False)
    words = ["export", str(flow), "--decoder", str(tmp_path / "SHARP"), "--out", str(tmp_path / "model")]
    assert cli.main(words) == 0
    sharp, x = from_pretrained(tmp_path / "model"), made.sample(2, steps=2)
    assert torch.equal(sharp.sample(2, steps=2), made.with_decoder(tmp_path / "SHARP").sample(2, steps=2))
    assert not torch.equal(sharp.sample(2, steps=2), x)
    run(recipe(steps=2, seed=1), tmp_path / "OTHER")
    capsys.readouterr()
    assert cli.main([*words[:3], str(tmp_path / "OTHER"), "--out", str(tmp_path / "no")]) == 2
    assert "has another encoder than the one" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_flow_in_its_latent_stands_alone(trained, tmp_path):
    copy = tmp_path / "AE"
    shutil.copytree(trained[1], copy)
    codec = f"pixels+autoencoder:run={copy},whiten=0.25"
    small = {"codec": codec, "network": "unet:width=8,multipliers=1-1,attention=0-0,groups=4", "steps": 3, "batch": 8}
    made = run(ebbtide.flow_latents(**small, held_out=0.3), tmp_path / "flow", solvers=False)
    shutil.rmtree(copy)
    x = made.sample(2, steps=2)
    assert x.shape == (2, 1, 8, 8)
    assert torch.equal(from_pretrained(tmp_path / "flow").sample(2, steps=2), x)
    exported = made.save_pretrained(tmp_path / "export")
    shutil.rmtree(tmp_path / "flow")
    assert torch.equal(from_pretrained(exported).sample(2, steps=2), x)
