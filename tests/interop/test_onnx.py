"""ONNX graphs in onnxruntime beside torch: networks, samples of points and images, a student's jump, a policy."""

import importlib.util

import numpy as np
import pytest
import torch

import problems
from ebbtide.codecs import Pixels, Standardise
from ebbtide.codecs.ranks import fit_ranks
from ebbtide.core.randomness import Draws
from ebbtide.data import Observation
from ebbtide.errors import InputError
from ebbtide.interop.onnx import save_onnx
from ebbtide.networks.observation import conditions
from ebbtide.recipes import RECIPES
from ebbtide.training.build import build_denoiser
from ebbtide.training.trained import Trained

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.unchecked  # a traced number of samples has no shape to check

POINTS = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[3.0, 1.0], [0.0, 0.2]]) + 5


def made(recipe, shape, codec, observation=None, **fields):
    """An untrained run whose network says something."""
    recipe = RECIPES[recipe](**fields)
    classes = ("cat", "dog", "elk") if recipe.conditional else ()
    denoiser = build_denoiser(recipe, shape, len(classes), observation).eval()
    problems.fill(denoiser.network, 0.1)
    return Trained(
        denoiser, recipe, shape, codec, classes=classes, frequencies=(0.5, 0.25, 0.25)[: len(classes)],
        observation=observation,
    )  # fmt: skip


def run(file, **inputs):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: np.asarray(part) for name, part in inputs.items()})
    return torch.from_numpy(found)


def noise(trained, n, seed=4):
    """x₁ of the first samples of `sample`, as standard normal numbers."""
    return Draws.first(n, seed)(-1, torch.empty(n, *trained.latent_shape))


def apart(a, b):
    assert a.shape == b.shape
    assert float(b.std()) > 1e-3
    return float((a - b).abs().max() / b.abs().max().clamp(min=1))


@pytest.mark.slow  # as most here: tracing takes seconds, and one of a kind is in the daily tests
@torch.no_grad()
def test_a_network_alone(tmp_path):
    trained = made("flow", (2,), Standardise.fit(POINTS), network="mlp:width=16", conditional=True)
    graph = save_onnx(trained, tmp_path / "net.onnx")
    assert (graph.inputs, graph.output) == (("x", "t", "label"), "y")
    assert graph.difference < 1e-5
    x, t, label = torch.randn(7, 2), torch.rand(7), torch.tensor([0, 1, 2, 3, 3, 0, 1])
    assert apart(run(graph.file, x=x, t=t, label=label), trained.denoiser.network(x, t, label=label)) < 1e-5


CASES = {
    "a flow": ("flow", {"network": "mlp:width=16"}, {"steps": 3}),
    "by class, DPM-Solver++": (
        "ddpm", {"network": "mlp:width=16", "conditional": True}, {"steps": 4, "sampler": "dpmpp_2m"},
    ),
    "EDM, edm": ("edm", {"network": "mlp:width=16"}, {"steps": 3, "sampler": "edm"}),
    "UniPC": ("flow", {"network": "mlp:width=16"}, {"steps": 5, "sampler": "unipc:order=3"}),
    "a student's jump": ("shortcut", {"network": "mlp:width=16,spans=true"}, {"steps": 2}),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if "class" in name else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_noise_to_samples(name, tmp_path):
    """What `Trained.sample` gives: the graph holds sampler, grid and codec, and no path of this machine."""
    recipe, fields, options = CASES[name]
    trained = made(recipe, (2,), Standardise.fit(POINTS), data=str(tmp_path / "mine.csv"), **fields)
    graph = save_onnx(trained, tmp_path / "sampler.onnx", **options)
    assert graph.difference < 1e-5
    label = {"label": torch.tensor([2, 0, 1, 2, 1])} if trained.recipe.conditional else {}
    found = run(graph.file, noise=noise(trained, 5), **label)
    assert apart(found, trained.sample(5, seed=4, **options, **label)) < 1e-5
    data = graph.file.read_bytes()
    for word in (str(tmp_path), "site-packages", "/src/"):
        assert word.encode() not in data


@pytest.mark.slow
def test_images_and_policies(tmp_path):
    network = "unet:width=8,multipliers=1,attention=0,blocks=1,groups=4"
    trained = made("ddpm-images", (1, 8, 8), Pixels(), network=network)
    graph = save_onnx(trained, tmp_path / "images.onnx", steps=2, sampler="ddim")
    found = run(graph.file, noise=noise(trained, 2))
    assert apart(found, trained.sample(2, seed=4, steps=2, sampler="ddim")) < 1e-5  # clipped as the recipe is

    observation = Observation({"state": (1, 4)}, Standardise.fit(torch.randn(20, 4)))
    codec = Standardise.fit(POINTS)
    policy = made(
        "flow-policy", (8, 2), codec, observation, network="action_unet:width=8,multipliers=1-2,emb=16,groups=4"
    )
    graph = save_onnx(policy, tmp_path / "policy.onnx", steps=2, sampler="heun")
    assert graph.inputs == ("noise", "state")
    state = torch.randn(3, 1, 4)
    expected = policy.sample(3, seed=4, seen={"state": state}, steps=2, sampler="heun")
    assert apart(run(graph.file, noise=noise(policy, 3), state=state), expected) < 1e-5


TRANSFORMERS = {
    "dit": ("flow-images", (1, 8, 8), "dit-tiny:width=32,depth=2,head=16", {"conditional": True}),
    "dit that spans": ("flow-images", (1, 8, 8), "dit-tiny:width=32,depth=2,head=16,spans=true", {}),
    "action_expert": ("pi0", (8, 2), "action_expert:width=32,depth=2,head=8,heads=2", {}),
    "pi05": ("pi0", (8, 2), "action_expert:width=32,depth=2,head=8,heads=2,variant=pi05", {}),
    "action_transformer": ("flow-policy", (8, 2), "action_transformer:width=32,depth=2,head=16", {}),
    "action_unet-film": ("flow-policy", (8, 2), "action_unet-film:widths=16-32,emb=16", {}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMERS)
@torch.no_grad()
def test_networks_of_transformers_and_their_samples(name, tmp_path):
    """Any number of samples, the network alone and from noise; of policies with state, images and a prompt."""
    recipe, shape, network, fields = TRANSFORMERS[name]
    policy = len(shape) == 2
    shapes = {"state": (1, 4), "images": (1, 16, 16, 3), "prompt": (8,)}
    if name in ("pi05", "action_unet-film"):  # the state alone
        shapes = {"state": (1, 4)}
    states = torch.rand(20, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    observation = Observation(shapes, Standardise.fit(states)) if policy else None
    trained = made(
        recipe, shape, Standardise.fit(POINTS) if policy else Pixels(), observation, network=network, **fields
    )
    draw = torch.Generator().manual_seed(2)
    seen = {}
    if policy:
        seen = {"state": torch.rand(5, 1, 4, generator=draw)}
        if "images" in shapes:
            seen["images"] = torch.randint(0, 256, (5, 1, 16, 16, 3), dtype=torch.uint8, generator=draw)
            seen["prompt"] = torch.randint(0, 100, (5, 8), generator=draw)
    label = {"label": torch.tensor([2, 0, 1, 2, 1])} if trained.recipe.conditional else {}
    graph = save_onnx(trained, tmp_path / "net.onnx")
    x, t = torch.randn(5, *shape, generator=draw), torch.rand(5, generator=draw)
    told = conditions(trained.denoiser.network, observation.see(seen)) if policy else {}
    found = run(graph.file, x=x, t=t, **label, **seen)
    assert apart(found, trained.denoiser.network(x, t, **label, **told)) < 1e-5
    how = {"steps": 2, "sampler": "jump" if "spans" in network else "heun"}
    graph = save_onnx(trained, tmp_path / "sampler.onnx", **how)
    found = run(graph.file, noise=noise(trained, 5), **label, **seen)
    assert apart(found, trained.sample(5, seed=4, **how, **label, **({"seen": seen} if policy else {}))) < 1e-5


def test_what_cannot_be_a_graph_is_one_sentence(tmp_path, monkeypatch):
    trained = made("ddpm", (2,), Standardise.fit(POINTS), network="mlp:width=16")
    file = tmp_path / "net.onnx"
    for options, named in (
        ({"steps": 3}, "draws noise"),
        ({"steps": 0}, "steps must be"),
        ({"sampler": "heu"}, "heun"),
        ({"steps": 3, "sampler": "dopri5"}, "chooses its steps"),
    ):
        with pytest.raises(InputError, match=named) as refused:
            save_onnx(trained, file, **options)
        assert "\n" not in str(refused.value)
        assert not file.exists()
    with pytest.raises(InputError, match="is a folder"):
        save_onnx(trained, tmp_path)
    file.write_text("mine")
    with pytest.raises(InputError, match="overwrite"):
        save_onnx(trained, file)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'ebbtide\[onnx\]'"):
        save_onnx(trained, tmp_path / "other.onnx")


def test_what_a_graph_can_not_hold_is_said_before_it_is_traced(tmp_path):
    sharp = made("super-resolution", (1, 8, 8), Pixels(), network="unet-tiny:width=8")
    cells = made("flow", (2,), fit_ranks(lambda: [POINTS.double()]))
    for trained, file, steps, words in (
        (sharp, "x.onnx", None, "drawn given other images or numbers"),
        (cells, "x.onnx", 2, "sees its columns by their ranks or levels"),
        (cells, "precious", None, r"precious must end in \.onnx"),
    ):
        with pytest.raises(InputError, match=words):
            save_onnx(trained, tmp_path / file, steps=steps)
    assert not [*tmp_path.iterdir()]
