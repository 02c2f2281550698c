"""Folders that diffusers runs by itself: its pipelines' samples beside ours, from the same noise."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import problems
from ebbtide.codecs import IDENTITY, Chain, Pixels, fit_patches
from ebbtide.core.guidance import Bounded, ClassifierFree
from ebbtide.core.paths import PATHS, VE, Cosine
from ebbtide.core.randomness import Draws
from ebbtide.errors import InputError
from ebbtide.interop.diffusers import from_diffusers, to_diffusers
from ebbtide.interop.pipelines import PIPELINE, save_pipeline
from ebbtide.interop.unet import load_unet
from ebbtide.recipes import RECIPES
from ebbtide.samplers import trajectory
from ebbtide.training.build import build_denoiser
from ebbtide.training.trained import Trained

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers deprecates at import, and converting warns by design

SMALL = "width=16,multipliers=1-2,attention=0-1,blocks=1,dropout=0.0"
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def diffusers():
    return importlib.import_module("diffusers")


def made(recipe, codec=None, network="", spread=0.15, **fields):
    """An untrained run of a recipe whose network says something."""
    recipe = RECIPES[recipe](network=f"unet:{SMALL}{network}", **fields)
    codec = Pixels() if codec is None else codec
    classes = ("cat", "dog", "elk") if recipe.conditional else ()
    denoiser = build_denoiser(recipe, codec.shape(SHAPE), len(classes)).eval()
    problems.fill(denoiser.network, spread)
    return Trained(denoiser, recipe, SHAPE, codec, classes=classes, frequencies=(0.5, 0.25, 0.25)[: len(classes)])


class Replay(Draws):
    """The noise that a pipeline draws, by step."""

    def __init__(self, recorded):
        super().__init__(0, torch.arange(len(recorded[0])))
        object.__setattr__(self, "recorded", recorded)

    def __call__(self, step, x):
        return self.recorded[step]


def ours(trained, folder, steps, latents, draws, denoiser=None, **cond):
    """Our samples at the times of the folder's scheduler, as a pipeline returns them."""
    config = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    converted = from_diffusers(config, steps)
    denoiser = trained.denoiser if denoiser is None else denoiser
    walk = trajectory(
        denoiser, trained.latent_shape, draws=draws, start=denoiser.path.prior(latents), sampler=converted.sampler,
        grid=converted.grid, **cond,
    )  # fmt: skip
    *_, (_, x) = walk
    return (trained.to_data(x) / 255).clamp(0, 1)


CASES = {
    # theirs adds noise in the last step too, unless that is to timestep 0: all steps of a table
    "DDPM, clipped": ("ddpm-images", {"path": "ddpm:steps=12,beta_max=0.9"}, {}, 12, "DDPMPipeline"),
    "DDPM, clipped, some steps": ("ddpm-images", {}, {"sampler": "ddpm"}, 8, "DDPMPipeline"),
    "DDPM by DDIM": ("ddpm-images", {"bound": 0.0}, {"sampler": "ddim"}, 8, "DDPMPipeline"),
    "DDPM by DPM-Solver++, of timesteps": (
        "ddpm-images", {"bound": 0.0, "target": "v", "network": ",time=timestep"}, {"sampler": "dpmpp_2m"}, 8,
        "DDPMPipeline",
    ),
    "v on VP": ("ddpm-images", {"path": "vp", "target": "v", "bound": 0.0}, {"sampler": "ddim"}, 8, "DDPMPipeline"),
    "flow of timesteps": ("flow-images", {"network": ",time=timestep,first=0"}, {}, 6, "DDPMPipeline"),
    "flow, shifted": (
        "flow-images", {"network": ",time=timestep,first=0", "sampler": "euler", "grid": "shifted:shift=2"}, {}, 6,
        "DDPMPipeline",
    ),
    "flow of Fourier's": ("flow-images", {}, {}, 6, "ImagePipeline"),
    "EDM, its own clock": (
        "edm-images", {"network": ",time=timestep,first=0,timesteps=1"}, {}, 8, "ConsistencyModelPipeline",
    ),
    "EDM of Fourier's": ("edm-images", {}, {"sampler": "ddim"}, 8, "ImagePipeline"),
}  # fmt: skip


def recorded(steps, shape, seed=3):
    """Draws that give what a torch.Generator of this seed gives a pipeline, and the start."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(shape, generator=generator)
    return start, Replay([torch.randn(shape, generator=generator) for _ in range(max(steps, 1))])


def drawn(diffusers, folder, steps, **asked):
    """What the folder's pipeline draws with seed 3, as numbers, and its class."""
    loaded = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    loaded.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    images = loaded(batch_size=2, generator=generator, num_inference_steps=steps, output_type="np", **asked).images
    assert float(images.std()) > 0.05
    return torch.from_numpy(images).permute(0, 3, 1, 2), type(loaded).__name__


@pytest.mark.unchecked
@pytest.mark.parametrize("name", CASES)
def test_a_pipelines_samples_are_ours(name, diffusers, tmp_path):
    recipe, fields, options, steps, pipeline = CASES[name]
    trained = made(recipe, **fields)
    written = save_pipeline(trained, tmp_path / "model", **options)
    found, loaded = drawn(diffusers, tmp_path / "model", steps)
    assert pipeline == written.pipeline == loaded
    assert (tmp_path / "model" / PIPELINE).exists() == (pipeline == "ImagePipeline")
    start, draws = recorded(steps, (2, *SHAPE))
    bound = trained.recipe.bound
    denoiser = Bounded(trained.denoiser, bound) if bound else None
    assert float((found - ours(trained, tmp_path / "model", steps, start, draws, denoiser)).abs().max()) < 1e-4


@pytest.mark.unchecked
@pytest.mark.parametrize("recipe", ["flow-images", "ddpm-images", "edm-images"])
def test_classes_and_guidance(recipe, diffusers, tmp_path):
    target = {"target": "v"} if recipe == "ddpm-images" else {}  # noise would be divided by α = 1/160
    trained = made(recipe, conditional=True, bound=0.0, **target)
    save_pipeline(trained, tmp_path / "model", sampler="ddpm" if recipe == "ddpm-images" else "")
    found, _ = drawn(diffusers, tmp_path / "model", 5, class_labels=["elk", 1], guidance_scale=2.0)
    start, draws = recorded(5, (2, *SHAPE))
    guided = ClassifierFree(trained.denoiser, 2.0, 3)
    expected = ours(trained, tmp_path / "model", 5, start, draws, guided, label=torch.tensor([2, 1]))
    assert float((found - expected).abs().max()) < 1e-4
    free, _ = drawn(diffusers, tmp_path / "model", 5)
    expected = ours(trained, tmp_path / "model", 5, start, draws, label=torch.tensor([3, 3]))
    assert float((free - expected).abs().max()) < 1e-4
    for asked in ({"class_labels": "cow"}, {"class_labels": [0]}, {"class_labels": 3}, {"guidance_scale": 2.0}):
        with pytest.raises(ValueError, match="class_labels"):
            drawn(diffusers, tmp_path / "model", 5, **asked)


@pytest.mark.unchecked
def test_latents_are_decoded_there(diffusers, tmp_path):
    images = torch.rand(32, *SHAPE, generator=torch.Generator().manual_seed(0)) * 255
    patches = fit_patches(lambda: [Pixels().encode(images)], size=2, keep=3)
    trained = made("flow-latents", Chain((Pixels(), patches)))
    save_pipeline(trained, tmp_path / "model")
    found, _ = drawn(diffusers, tmp_path / "model", 4)
    start, draws = recorded(4, (2, *trained.latent_shape))
    assert float((found - ours(trained, tmp_path / "model", 4, start, draws)).abs().max()) < 1e-4


@pytest.mark.unchecked
@pytest.mark.parametrize(("clock", "pipeline"), [("", "ImagePipeline"), (",time=timestep,first=0", "DDPMPipeline")])
def test_a_student_jumps_once(clock, pipeline, diffusers, tmp_path):
    trained = made("shortcut-images", network=f",spans=true{clock}")
    assert save_pipeline(trained, tmp_path / "model").steps == 1
    found, loaded = drawn(diffusers, tmp_path / "model", 1)
    assert loaded == pipeline
    start, draws = recorded(1, (2, *SHAPE))
    *_, (_, x) = trajectory(trained.denoiser, SHAPE, draws=draws, start=start, sampler="jump", grid="uniform", steps=1)
    assert float((found - (trained.to_data(x) / 255).clamp(0, 1)).abs().max()) < 1e-4
    still = trained.denoiser(start, 1.0).x0  # of the flow itself, which the student's jump isn't
    assert float((still - x).abs().max()) > 1e-2
    with pytest.raises(InputError, match="jumps once"):
        save_pipeline(trained, tmp_path / "two", steps=2)


ALONE = """
import sys

class Never:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "ebbtide":
            raise ImportError(name)

sys.meta_path.insert(0, Never())
import numpy, torch
from diffusers import DiffusionPipeline

for folder in sys.argv[1:]:
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    images = pipeline(batch_size=2, generator=torch.Generator().manual_seed(3), num_inference_steps=3, output_type="np")
    numpy.save(f"{folder}.npy", images.images)
assert "ebbtide" not in sys.modules
"""


@pytest.mark.slow  # two processes that import diffusers
@pytest.mark.unchecked
def test_they_run_where_ebbtide_cannot_be_imported(diffusers, tmp_path):
    """A folder of theirs alone, and one with our pipeline.py and decoder.py."""
    images = torch.rand(32, *SHAPE, generator=torch.Generator().manual_seed(0)) * 255
    patches = fit_patches(lambda: [Pixels().encode(images)], size=2, keep=3)
    save_pipeline(made("ddpm-images"), tmp_path / "plain")
    save_pipeline(made("flow-latents", Chain((Pixels(), patches)), conditional=True), tmp_path / "latent")
    folders = [tmp_path / "plain", tmp_path / "latent"]
    subprocess.run([sys.executable, "-c", ALONE, *folders], check=True, capture_output=True, cwd=tmp_path)
    for folder in folders:
        found, _ = drawn(diffusers, folder, 3)
        alone = torch.from_numpy(np.load(f"{folder}.npy")).permute(0, 3, 1, 2)
        assert float((found - alone).abs().max()) < 1e-6


@pytest.mark.parametrize("recipe", ["ddpm-images", "flow-images", "edm-images"])
def test_it_is_what_load_unet_reads(recipe, tmp_path):
    """The inverse of from_diffusers: the same path, target, sampler, clip and network come back."""
    clock = {"flow-images": ",first=0", "edm-images": ",first=0,timesteps=1"}.get(recipe, "")
    trained = made(recipe, network=f",time=timestep{clock}")
    save_pipeline(trained, tmp_path / "model")
    loaded = load_unet(tmp_path / "model")
    assert loaded.converted.path == trained.denoiser.path
    assert loaded.converted.target == trained.recipe.target
    assert loaded.converted.sampler == {"edm-images": "dpmpp_2m"}.get(recipe, trained.recipe.sampler)
    assert loaded.clip == (trained.recipe.bound or None)
    assert loaded.shape == SHAPE
    for name, part in trained.denoiser.network.state_dict().items():
        assert torch.equal(part, loaded.network.state_dict()[name])


def test_schedulers_there_and_back():
    for path in (
        PATHS["ddpm"](),
        PATHS["ddpm"](steps=200, betas="scaled_linear"),
        PATHS["ddpm"](table=(0.1, 0.5, 0.9)),
    ):
        for target in ("noise", "x0", "v"):
            for sampler in ("ddim", "ddpm", "ddpm:variance=beta", "dpmpp_2m", "unipc:order=3"):
                found = from_diffusers(to_diffusers(path, target, sampler))
                assert (found.path, found.target) == (path, target) or path.table
                wanted = sampler if sampler != "unipc:order=3" else "unipc:order=3,variant=bh2"
                assert (found.sampler, found.grid) == (wanted, "trailing")
                assert torch.allclose(found.path.log_alpha_bar, path.log_alpha_bar, rtol=1e-12)
    for grid in ("uniform", "shifted:shift=2.5"):
        assert from_diffusers(to_diffusers(PATHS["linear"](), "velocity", "heun", grid)).grid == grid
    found = from_diffusers(to_diffusers(VE(50.0), "edm:data_std=0.3", "ddim", "karras:rho=5,ratio_min=0.01"))
    assert (found.path, found.target, found.grid) == (
        VE(50.0), "edm:data_std=0.3", "karras:rho=5.0,ratio_min=0.01,ratio_max=50.0",
    )  # fmt: skip
    table = from_diffusers(to_diffusers(Cosine(), "v")).path
    c, d = table.along([0.25, 0.9]), Cosine().along([0.25, 0.9])
    assert all(abs(a.alpha - b.alpha) < 1e-9 for a, b in zip(c, d))


@pytest.mark.parametrize(
    ("recipe", "fields", "options", "named"),
    [
        ("flow-images", {"path": "bridge"}, {}, "path bridge"),
        ("ddpm-images", {"target": "score"}, {}, "target"),
        ("flow-images", {}, {"sampler": "rk4"}, "euler, heun"),
        ("flow-images", {"network": ",patch=2"}, {}, "patch=2"),
        ("flow-images", {}, {"steps": 0}, "steps"),
        ("shortcut-images", {"network": ",spans=true", "path": "cosine"}, {}, "students of flows"),
    ],
)
def test_what_has_no_counterpart_is_one_sentence(recipe, fields, options, named, tmp_path):
    with pytest.raises(InputError, match=named) as refused:
        save_pipeline(made(recipe, **fields), tmp_path / "model", **options)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_other_data_and_other_networks_are_refused(tmp_path):
    with pytest.raises(InputError, match="pixels 0 to 255"):
        save_pipeline(made("flow-images", IDENTITY), tmp_path / "model")
    recipe = RECIPES["flow-images"](network="dit-tiny")
    denoiser = build_denoiser(recipe, SHAPE, 0).eval()
    with pytest.raises(InputError, match="network is dit-tiny"):
        save_pipeline(Trained(denoiser, recipe, SHAPE, Pixels()), tmp_path / "model")


def test_a_folder_is_replaced_only_if_asked_and_only_what_was_written(tmp_path):
    trained = made("ddpm-images")
    save_pipeline(trained, tmp_path / "model")
    with pytest.raises(InputError, match="overwrite"):
        save_pipeline(trained, tmp_path / "model")
    save_pipeline(made("flow-images"), tmp_path / "model", overwrite=True)
    (tmp_path / "model/unet/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        save_pipeline(trained, tmp_path / "model", overwrite=True)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="no exported pipeline"):
        save_pipeline(trained, tmp_path / "other", overwrite=True)
