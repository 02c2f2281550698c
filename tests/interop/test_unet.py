"""UNet2DModel and UNet side by side: the same weights, the same numbers, both ways; and the same samples."""

import importlib
import json

import pytest
import torch
from safetensors.torch import load_file, save, save_file

import problems
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.guidance import Bounded
from ebbtide.core.paths import DDPM, VE, Linear
from ebbtide.core.randomness import Draws
from ebbtide.errors import InputError
from ebbtide.interop.unet import DEFAULTS, load_unet, save_unet
from ebbtide.networks import NETWORKS
from ebbtide.networks.unet import UNet
from ebbtide.samplers import trajectory
from ebbtide.specs import bind, options

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers deprecates at import, and converting warns by design

GOOGLE = {  # of google/ddpm-*
    "act_fn": "silu", "attention_head_dim": None, "center_input_sample": False, "downsample_padding": 0,
    "flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3, "time_embedding_type": "positional",
}  # fmt: skip
CIFAR = GOOGLE | {
    "sample_size": 32, "block_out_channels": [128, 256, 256, 256],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
CELEBA = GOOGLE | {
    "sample_size": 256, "block_out_channels": [128, 128, 256, 256, 512, 512],
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
}  # fmt: skip
BUTTERFLIES = {  # what their training example writes: settings that are the defaults are left out
    "sample_size": 128, "block_out_channels": [128, 128, 256, 256, 512, 512],
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
}  # fmt: skip
CONDITIONAL = {
    "sample_size": [16, 24], "in_channels": 1, "out_channels": 1, "block_out_channels": [32, 64, 96],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 16,
    "resnet_time_scale_shift": "scale_shift", "num_class_embeds": 10, "norm_num_groups": 8, "layers_per_block": 1,
}  # fmt: skip
NARROW = {"block_out_channels": [16, 16, 32, 32, 64, 64], "norm_num_groups": 8, "sample_size": 64}
CONFIGS = {
    "cifar10": CIFAR | {"block_out_channels": [32, 64, 64, 64], "norm_num_groups": 8},
    "celebahq": CELEBA | NARROW,
    "butterflies": BUTTERFLIES | NARROW,
    "conditional, a middle without norm": CONDITIONAL,
    "conditional": CONDITIONAL | {"attn_norm_num_groups": 8},
    "no attention in the middle, widths without a common step": CONDITIONAL | {
        "add_attention": False, "num_class_embeds": None, "resnet_time_scale_shift": "default", "dropout": 0.1,
        "block_out_channels": [48, 64, 80], "layers_per_block": 2,
    },
}  # fmt: skip
TIMESTEPS = torch.tensor([0, 500, 999])


def fill(network, std=0.1):
    return problems.fill(network, std)


@pytest.fixture(scope="module")
def diffusers():
    return importlib.import_module("diffusers")  # seconds, which only its own tests should wait for


def theirs(config, std=0.1):
    from diffusers import UNet2DModel

    return fill(UNet2DModel(**config), std)


def ours(*shape, **options):
    return fill(UNet(*shape, **{"time": "timestep", **options}))


def example(config, b=3):
    size = config["sample_size"]
    rows, columns = (size, size) if isinstance(size, int) else size
    x = torch.randn(b, config.get("in_channels", 3), rows, columns, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 4, 9]) if config.get("num_class_embeds") else None
    return x, labels


def apart(a, b):
    """The largest difference, relative to the numbers themselves."""
    assert float(b.std()) > 1e-3  # numbers to speak of
    return float((a - b).abs().max() / b.abs().max().clamp(min=1))


def write_json(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


@pytest.mark.parametrize("name", CONFIGS)
class TestTheSameFunction:
    @torch.no_grad()
    def test_theirs_here(self, name, tmp_path):
        config = CONFIGS[name]
        network, (x, labels) = theirs(config), example(config)
        network.save_pretrained(tmp_path / "unet")
        loaded = load_unet(tmp_path / "unet")
        assert loaded.shape == tuple(x.shape[1:])
        assert (loaded.converted, loaded.clip) == (None, None)
        assert sum(p.numel() for p in loaded.network.parameters()) - sum(p.numel() for p in network.parameters()) == (
            0 if labels is None else 4 * config["block_out_channels"][0]  # the null label
        )
        expected = network(x, TIMESTEPS, labels).sample
        assert apart(loaded.network(x, (TIMESTEPS + 1) / 1000, labels), expected) < 1e-5

    @torch.no_grad()
    def test_and_back(self, name, diffusers, tmp_path):
        config = CONFIGS[name]
        network, (x, labels) = theirs(config), example(config)
        network.save_pretrained(tmp_path / "unet")
        save_unet(load_unet(tmp_path / "unet").network, tmp_path / "again")
        again, info = diffusers.UNet2DModel.from_pretrained(tmp_path / "again", output_loading_info=True)
        assert not any(info.values())
        assert apart(again(x, TIMESTEPS, labels).sample, network(x, TIMESTEPS, labels).sample) < 1e-5
        kept = {**DEFAULTS, **config, "flip_sin_to_cos": False}
        if kept["attn_norm_num_groups"] is None and kept["resnet_time_scale_shift"] == "default":
            kept["attn_norm_num_groups"] = kept["norm_num_groups"]
        found = {key: list(value) if isinstance(value, tuple) else value for key, value in again.config.items()}
        assert {key: found[key] for key in kept} == kept


OURS = {
    "scale and shift": ((3, 16, 16, 4), {"width": 16, "multipliers": "1-2", "attention": "0-1", "blocks": 1}),
    "adding": ((1, 8, 16), {"width": 16, "conditioning": "add", "asymmetric": True, "freq_shift": 1, "head": 16}),
    "one level": ((2, 8, 8), {"width": 16, "multipliers": "2", "attention": "1", "middle": "unnormed", "head": 32}),
    "one head": ((2, 8, 8, 1), {"width": 16, "multipliers": "1-3", "attention": "1-1", "eps": 1e-3}),
    "no attention": ((2, 8, 8), {"width": 16, "attention": "0-0-0-0", "middle": "plain", "blocks": 3, "dropout": 0.0}),
}


@pytest.mark.parametrize("name", OURS)
@torch.no_grad()
def test_ours_there_and_back(name, diffusers, tmp_path):
    shape, options = OURS[name]
    network = ours(*shape, **options)
    assert save_unet(network, tmp_path / "unet") == tmp_path / "unet"
    model = diffusers.UNet2DModel.from_pretrained(tmp_path / "unet")
    x = torch.randn(3, *shape[:3])
    labels = torch.tensor([0, 1, network.classes]) if network.classes else None
    y = network(x, (TIMESTEPS + 1) / 1000, labels)
    assert apart(model(x, TIMESTEPS, labels).sample, y) < 1e-5
    again = load_unet(tmp_path / "unet", null_label=bool(network.classes)).network
    assert apart(again(x, (TIMESTEPS + 1) / 1000, labels), y) < 1e-6
    assert all(torch.equal(part, again.state_dict()[part_name]) for part_name, part in network.state_dict().items())


def test_the_preset_is_the_published_network(tmp_path):
    """Its config, and the names and shapes of its weights; at a quarter of the width, as it has 35.7 M of them."""
    narrow = CIFAR | {"block_out_channels": [32, 64, 64, 64]}
    network = bind(NETWORKS, "unet-ddpm-cifar10:width=32,head=64", "network")(3, 32, 32, 0)
    save_unet(network, tmp_path / "unet")
    found, wanted = load_file(tmp_path / "unet/diffusion_pytorch_model.safetensors"), theirs(narrow).state_dict()
    assert {name: part.shape for name, part in found.items()} == {name: part.shape for name, part in wanted.items()}
    expected = {**DEFAULTS, **narrow, "_class_name": "UNet2DModel"}
    expected |= {"attn_norm_num_groups": 32, "dropout": 0.1}  # what None means; and theirs don't say it
    assert json.loads((tmp_path / "unet/config.json").read_text()) == expected
    assert options(NETWORKS["unet-ddpm-cifar10"])["width"].default == 128


@pytest.mark.slow
@pytest.mark.parametrize("config", [CIFAR, CELEBA | {"sample_size": 64}, BUTTERFLIES | {"sample_size": 64}])
@torch.no_grad()
def test_at_full_size(config, diffusers, tmp_path):
    network, (x, _) = theirs(config), example(config, 1)
    network.save_pretrained(tmp_path / "unet")
    loaded, timestep = load_unet(tmp_path / "unet").network, torch.tensor([321])
    expected = network(x, timestep).sample
    assert apart(loaded(x, (timestep + 1) / 1000), expected) < 1e-5
    save_unet(loaded, tmp_path / "again")
    again = diffusers.UNet2DModel.from_pretrained(tmp_path / "again")
    assert apart(again(x, timestep).sample, expected) < 1e-5


# --- samples --------------------------------------------------------------------------------------------------------

TINY = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": [16, 32], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
}  # fmt: skip
TRAILING = {"timestep_spacing": "trailing"}


class Replay(Draws):
    """The noise that diffusers drew, by step."""

    def __init__(self, recorded):
        super().__init__(0, torch.arange(len(recorded[0]) if recorded else 2))
        object.__setattr__(self, "recorded", recorded)

    def __call__(self, step, x):
        return self.recorded[step]


@torch.no_grad()
def walk(scheduler, network, start, steps, **asked):
    """What a pipeline does: every x, and the noise of each step."""
    recorded, x, states = [], start, [start]
    generator = torch.Generator().manual_seed(1)

    def randn(shape, **_):
        recorded.append(torch.randn(shape, generator=generator))
        return recorded[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module(type(scheduler).__module__), "randn_tensor", randn, raising=False)
        scheduler.set_timesteps(steps)
        for timestep in scheduler.timesteps:
            x = scheduler.step(network(x, timestep).sample, timestep, x, **asked).prev_sample
            states.append(x)
    return states, Replay(recorded)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("name", "config", "asked", "steps", "clip"),
    [
        ("DDPMScheduler", {"clip_sample": False}, {}, 10, None),
        ("DDPMScheduler", {"clip_sample": False, "beta_schedule": "scaled_linear", "beta_end": 0.012}, {}, 10, None),
        ("DDPMScheduler", {"clip_sample": True}, {}, 10, 1.0),
        ("DDPMScheduler", {"clip_sample": True, "beta_schedule": "squaredcos_cap_v2"}, {}, 10, 1.0),
        ("DDPMScheduler", {"clip_sample_range": 1.5}, {}, 10, 1.5),
        pytest.param(
            "DDPMScheduler",
            {"clip_sample": True, "beta_schedule": "squaredcos_cap_v2"},
            {},
            100,
            1.0,
            marks=pytest.mark.slow,
        ),
        pytest.param("DDPMScheduler", {"clip_sample_range": 1.5}, {}, 1000, 1.5, marks=pytest.mark.slow),
        ("DDIMScheduler", {"clip_sample": False}, {}, 8, None),
        ("DDIMScheduler", {"clip_sample": False, "prediction_type": "v_prediction"}, {"eta": 0.5}, 8, None),
        # Its step mixes the clipped x̂₀ with the noise of the unclipped one, unless told otherwise.
        ("DDIMScheduler", {}, {"use_clipped_model_output": True}, 8, 1.0),
        ("DDIMScheduler", {}, {}, 8, 1.0),
        ("DDIMScheduler", {"prediction_type": "v_prediction", "clip_sample_range": 0.5}, {"eta": 0.5}, 8, 0.5),
        ("FlowMatchEulerDiscreteScheduler", {}, {}, 10, None),
    ],
)
def test_a_pipelines_samples_from_its_folder(name, config, asked, steps, clip, diffusers, tmp_path):
    """Network, path, times and sampler all come from the folder; start and noise are theirs."""
    network = theirs(TINY, std=0.15)
    spaced = {} if name.startswith("Flow") else TRAILING
    scheduler = getattr(diffusers, name)(**spaced, **config)
    network.save_pretrained(tmp_path / "unet")
    scheduler.save_pretrained(tmp_path / "scheduler")
    if "eta" in asked:  # an argument of theirs that no file holds
        file = tmp_path / "scheduler/scheduler_config.json"
        write_json(file, json.loads(file.read_text()) | {"eta": asked["eta"]})
    start = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    states, draws = walk(scheduler, network, start, steps, **asked)

    loaded = load_unet(tmp_path, steps=steps)
    assert loaded.clip == clip
    denoiser = Denoiser(loaded.network, loaded.converted.path, loaded.converted.target)
    if loaded.clip is not None:
        keeps = "DDIM" in name and "use_clipped_model_output" not in asked
        denoiser = Bounded(denoiser, loaded.clip, keep_noise=keeps)
    walked = trajectory(
        denoiser, loaded.shape, draws=draws, start=start, sampler=loaded.converted.sampler, grid=loaded.converted.grid
    )
    scale = max(float(x.abs().max()) for x in states)
    for (_, x), expected in zip(walked, states, strict=True):
        assert float((x - expected).abs().max()) < (2e-5 if steps < 1000 else 1e-4) * scale
    if clip is not None:  # it did act
        free = trajectory(denoiser.denoiser, loaded.shape, draws=draws, start=start, sampler=loaded.converted.sampler,
                          grid=loaded.converted.grid)  # fmt: skip
        assert float((list(free)[-1][1] - states[-1]).abs().max()) > 0.1


# --- folders --------------------------------------------------------------------------------------------------------


def folder_of(config, place):
    """A small network of theirs, saved."""
    network = theirs(TINY | config)
    network.save_pretrained(place)
    return network


def rewrite(place, change):
    """Change the weights' names."""
    file = place / "diffusion_pytorch_model.safetensors"
    save_file({change(name): part.clone() for name, part in load_file(file).items()}, file)


@torch.no_grad()
def test_a_scheduler_beside_the_weights_and_the_clock_it_keeps(diffusers, tmp_path):
    """As google/ddpm-* has it. A table of 500 entries has timesteps 500 t - 1."""
    network = folder_of({}, tmp_path)
    diffusers.DDPMScheduler(num_train_timesteps=500, clip_sample=False).save_pretrained(tmp_path)
    loaded = load_unet(tmp_path)
    assert loaded.converted.path == DDPM(steps=500)
    x, _ = example(TINY)
    timesteps = torch.tensor([0, 250, 499])
    assert apart(loaded.network(x, (timesteps + 1) / 500), network(x, timesteps).sample) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "path", "time"),
    [("FlowMatchEulerDiscreteScheduler", Linear(), 0.3), ("EDMEulerScheduler", VE(80.0), 0.3)],
)
def test_the_clocks_of_flows_and_of_edm(name, path, time, diffusers, tmp_path):
    """A flow's timestep is 1000 σ, and EDM's network is told c_noise = log(σ)/4 itself, which is our clock too."""
    network = folder_of({}, tmp_path / "unet")
    getattr(diffusers, name)().save_pretrained(tmp_path / "scheduler")
    loaded = load_unet(tmp_path)
    assert loaded.converted.path == path
    assert loaded.clip is None
    x, _ = example(TINY)
    timestep = torch.tensor([1000 * time if path == Linear() else time])
    assert apart(loaded.network(x, torch.tensor([time])), network(x, timestep).sample) < 1e-5


@torch.no_grad()
def test_edm_is_told_the_clock_and_the_scaled_input(diffusers, tmp_path):
    """A whole denoiser against EDMEulerScheduler's preconditioning, at σ = 2."""
    network = folder_of({}, tmp_path / "unet")
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.save_pretrained(tmp_path / "scheduler")
    loaded = load_unet(tmp_path)
    x, sigma = 2 * example(TINY)[0], torch.tensor([2.0])
    expected = scheduler.precondition_outputs(
        x, network(scheduler.precondition_inputs(x, 2.0), scheduler.precondition_noise(sigma)).sample, 2.0
    )
    denoiser = Denoiser(loaded.network, loaded.converted.path, loaded.converted.target)
    t = loaded.converted.path.time_of(sigma.double()).float()
    assert apart(denoiser(x, t).x0, expected) < 1e-5


@torch.no_grad()
def test_old_names(tmp_path):
    """Of attention's weights, of the kinds of blocks and of the class, in the files of its first years."""
    network = folder_of({}, tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def change(name):
        for new, before in old.items():
            name = name.replace(new, before)
        return name

    rewrite(tmp_path, change)
    config = json.loads((tmp_path / "config.json").read_text())
    config["down_block_types"] = ["UNetResDownBlock2D", "UNetResAttnDownBlock2D"]
    config["up_block_types"] = ["UNetResAttnUpBlock2D", "UNetResUpBlock2D"]
    write_json(tmp_path / "config.json", config | {"_class_name": "UNetUnconditionalModel"})
    x, _ = example(TINY)
    assert apart(load_unet(tmp_path).network(x, (TIMESTEPS + 1) / 1000), network(x, TIMESTEPS).sample) < 1e-5


@torch.no_grad()
def test_labels(tmp_path):
    """Their classes are ours; the null label adds nothing, or is the last of theirs."""
    network = folder_of({"num_class_embeds": 3}, tmp_path)
    x, _ = example(TINY)
    t, last = (TIMESTEPS + 1) / 1000, torch.tensor([2, 2, 2])
    plain, with_null = load_unet(tmp_path).network, load_unet(tmp_path, null_label=True).network
    assert (plain.classes, with_null.classes) == (3, 2)
    assert apart(plain(x, t, last), network(x, TIMESTEPS, last).sample) < 1e-5
    assert apart(with_null(x, t), network(x, TIMESTEPS, last).sample) < 1e-5
    save_unet(with_null, tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["num_class_embeds"] == 3
    plain.from_label.weight[-1] += 1  # learnt since: one class more
    save_unet(plain, tmp_path / "learnt")
    assert load_unet(tmp_path / "learnt", null_label=True).network.classes == 3
    plain.from_label.weight[-1] = 0
    network.class_embedding = None
    assert apart(plain(x, t), network(x, TIMESTEPS).sample) < 1e-5


@torch.no_grad()
def test_half_precision_weights_are_loaded_as_float32(tmp_path):
    network = theirs(TINY).half()
    network.save_pretrained(tmp_path)
    x, _ = example(TINY)
    assert apart(load_unet(tmp_path).network(x, (TIMESTEPS + 1) / 1000), network.float()(x, TIMESTEPS).sample) < 1e-5


def test_a_size_the_config_leaves_out(tmp_path):
    folder_of({"sample_size": None}, tmp_path)
    assert load_unet(tmp_path, size=(12, 20)).shape == (1, 12, 20)
    with pytest.raises(InputError, match="sample_size is None"):
        load_unet(tmp_path)


@pytest.mark.parametrize(
    ("scheduler", "clip"),
    [
        ({"_class_name": "DDPMScheduler"}, 1.0),  # it does unless told otherwise
        ({"_class_name": "DDPMScheduler", "clip_sample": False}, None),
        ({"_class_name": "DDIMScheduler", "clip_sample_range": 2.0}, 2.0),
        ({"_class_name": "DDPMScheduler", "thresholding": True}, None),  # another thing, which it does instead
        ({"_class_name": "DPMSolverMultistepScheduler"}, None),
    ],
)
def test_the_clip_is_the_schedulers(scheduler, clip, published, tmp_path):
    for file in published.iterdir():
        (tmp_path / file.name).symlink_to(file)
    write_json(tmp_path / "scheduler_config.json", scheduler)
    assert load_unet(tmp_path).clip == clip


# A setting without a counterpart, and what the refusal names.
REFUSED = [
    ({"_class_name": "UNet2DConditionModel"}, "_class_name must be one of UNet2DModel"),
    ({"center_input_sample": True}, "center_input_sample=True"),
    ({"time_embedding_type": "fourier"}, "time_embedding_type='fourier'"),
    ({"time_embedding_dim": 99}, "time_embedding_dim must be 4 × 16; got 99"),
    ({"mid_block_type": None}, "mid_block_type=None"),
    ({"mid_block_scale_factor": 1.4142}, "mid_block_scale_factor=1.4142"),
    ({"downsample_type": "resnet"}, "downsample_type='resnet'"),
    ({"upsample_type": "resnet"}, "upsample_type='resnet'"),
    ({"act_fn": "gelu"}, "act_fn='gelu'"),
    ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift='spatial'"),
    ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
    ({"class_embed_type": "identity"}, "class_embed_type='identity'"),
    ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "got 'SkipDownBlock2D'"),
    ({"down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"]}, "got 'ResnetDownsampleBlock2D'"),
    ({"up_block_types": ["AttnSkipUpBlock2D", "UpBlock2D"]}, "got 'AttnSkipUpBlock2D'"),
    ({"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, "must have the same levels"),
    ({"block_out_channels": [16, 32, 32]}, "must have the same levels"),
    ({"attn_norm_num_groups": 2}, "attn_norm_num_groups must be norm_num_groups; got 2"),
    ({"attention_head_dim": 20}, "attention_head_dim=20 must divide"),
    ({"out_channels": 2}, "out_channels=2 must be in_channels=1"),
    ({"sample_size": 9}, "rows and columns"),
    ({"downsample_padding": 2}, "downsample_padding=2"),
    ({"freq_shift": 2}, "freq_shift must be"),
    ({"layers_per_block": "2"}, "can't be used"),
    ({"block_out_channels": 64}, "can't be used"),
    ({"layers_per_block": 2}, "lacks down_blocks.0.resnets.1"),
    ({"add_attention": False}, "has mid_block.attentions.0"),
    ({"block_out_channels": [16, 48]}, "has the shape"),
]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    place = tmp_path_factory.mktemp("published")
    folder_of({}, place)
    return place


@pytest.mark.parametrize(("settings", "named"), REFUSED)
def test_what_has_no_counterpart_is_named_in_one_sentence(settings, named, published, tmp_path):
    config = json.loads((published / "config.json").read_text())
    write_json(tmp_path / "config.json", config | settings)
    (tmp_path / "diffusion_pytorch_model.safetensors").symlink_to(published / "diffusion_pytorch_model.safetensors")
    with pytest.raises(InputError) as refused:
        load_unet(tmp_path)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        load_unet(tmp_path / "missing")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="must hold a config"):
        load_unet(tmp_path)
    write_json(tmp_path / "config.json", TINY)
    with pytest.raises(InputError, match=r"diffusion_pytorch_model\.safetensors"):
        load_unet(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_unet(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(save({"conv_in.bias": torch.full((8,), torch.inf)}))
    with pytest.raises(InputError, match="holds numbers that are not finite"):
        load_unet(tmp_path)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"time": "fourier"}, "time=fourier"),
        ({"patch": 2}, "patch=2"),
        ({"width": 12, "multipliers": "1-2", "attention": "0-0"}, "groups"),
        ({"multipliers": "1-3-4", "attention": "0-1-1", "head": 32}, "heads"),
        ({"conditioning": "add", "middle": "unnormed"}, "middle=unnormed"),
    ],
)
def test_what_they_have_no_counterpart_of_is_not_saved(options, named, tmp_path):
    with pytest.raises(InputError, match=named):
        save_unet(ours(1, 8, 8, **{"width": 16, **options}), tmp_path / "unet")
    assert not (tmp_path / "unet").exists()


def test_a_folder_is_replaced_only_if_asked_and_only_what_was_saved(tmp_path):
    network = ours(1, 8, 8, width=16)
    save_unet(network, tmp_path / "unet")
    with pytest.raises(InputError, match="overwrite"):
        save_unet(network, tmp_path / "unet")
    save_unet(network, tmp_path / "unet", overwrite=True)
    (tmp_path / "unet" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds more"):
        save_unet(network, tmp_path / "unet", overwrite=True)
    assert (tmp_path / "unet" / "notes.txt").read_text() == "mine"


def test_it_does_not_import_diffusers():
    names = vars(importlib.import_module("ebbtide.interop.unet")).values()
    assert not any(getattr(value, "__name__", "") == "diffusers" for value in names)


def test_loading_draws_no_random_numbers(tmp_path):
    """No initial weights are made that the file's then replace."""
    network = UNet(1, 8, 8, 2, width=8, groups=2, time="timestep")
    save_unet(network, tmp_path / "net")
    before = torch.get_rng_state()
    loaded = load_unet(tmp_path / "net", null_label=True).network
    assert torch.equal(torch.get_rng_state(), before)
    for name, part in loaded.state_dict().items():
        assert torch.equal(part, network.state_dict()[name]), name
        assert part.stride() == network.state_dict()[name].stride(), name
