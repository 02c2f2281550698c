"""π0 beside transformers' PI0ForConditionalGeneration: the same weights, loss and samples; and the published names."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save, save_file
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.errors import InputError
from ebbtide.interop.pi0 import DIALECTS, from_pi0, load_pi0, to_pi0
from ebbtide.networks import action_expert
from ebbtide.networks.action_expert import ActionExpert
from ebbtide.networks.paligemma import PaliGemma
from ebbtide.samplers import sample

transformers = pytest.importorskip("transformers", minversion="5.4")
pytestmark = pytest.mark.filterwarnings("ignore")

H, A, IMAGE_ID = 5, 7, 299
CONFIG = {
    "vlm_config": {
        "model_type": "paligemma", "projection_dim": 32, "image_token_id": IMAGE_ID,
        "text_config": {
            "model_type": "gemma", "hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 300,
        },
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 16, "patch_size": 8, "vision_use_head": False,
        },
    },
    "dit_config": {
        "model_type": "gemma", "hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 48,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    },
    "chunk_size": H, "max_state_dim": A, "max_action_dim": A,
}  # fmt: skip
OBSERVATION = {"state": (1, A), "images": (3, 16, 16, 3), "prompt": (6,)}


def fill(network):
    """Weights everywhere, large enough to be heard."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.fixture(scope="module")
def theirs():
    return fill(transformers.PI0ForConditionalGeneration(transformers.PI0Config(**CONFIG)))


def ours(variant="pi0", state=A):
    prefix = PaliGemma(transformers.PI0Config(**CONFIG).vlm_config, variant=variant)
    return fill(
        ActionExpert(
            H, A, observation=OBSERVATION | {"state": (1, state)}, width=24, hidden=48, pad_to=A, variant=variant,
            prefix=prefix, **prefix.sizes,
        )
    )  # fmt: skip


def copied(theirs):
    network = ours()
    network.load_state_dict(from_pi0(network, theirs.state_dict()))
    return network


def observations():
    """Three: whole; a short prompt, the camera in the middle missing; no first camera and no prompt."""
    g = torch.Generator().manual_seed(1)
    here = {
        "state": torch.randn(3, 1, A, generator=g),
        "images": torch.randint(0, 256, (3, 3, 16, 16, 3), dtype=torch.uint8, generator=g),
        "image_mask": torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1]]).bool(),
        "prompt": torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 0, 0, 0], [0] * 6]),
    }
    rows = []  # an image is 4 tokens; a missing one has none there
    for there, prompt in zip(here["image_mask"], here["prompt"].tolist()):
        row = [IMAGE_ID] * 4 * int(there.sum()) + [word for word in prompt if word]
        rows.append(row + [0] * (18 - len(row)))
    ids = torch.tensor(rows)
    there = {
        "state": here["state"][:, 0],
        "pixel_values": here["images"].permute(0, 1, 4, 2, 3) / 127.5 - 1,
        "pixel_attention_mask": here["image_mask"],
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
    }
    return here, there


@pytest.fixture
def single(monkeypatch):
    """The time's features with their frequencies in float32, as transformers makes them."""
    from transformers.models.pi0.modeling_pi0 import PI0TimestepEmbeddings

    clock = PI0TimestepEmbeddings(transformers.PI0Config(**CONFIG))
    monkeypatch.setattr(action_expert, "periodic", lambda t, features: clock(t))


# --- parity -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_loss(theirs, single):
    network, (here, there) = copied(theirs), observations()
    x0, noise = torch.randn(2, 3, H, A, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([0.001, 0.4, 1.0])
    loss = Denoiser(network, Linear(), "velocity").loss(x0, noise, t, **here)
    expected = theirs(actions=x0, noise=noise, timestep=t, **there)
    x_t = t[:, None, None] * noise + (1 - t[:, None, None]) * x0
    velocity = network(x_t, t, **here)
    assert expected.logits.std() > 0.1  # numbers to speak of
    torch.testing.assert_close(velocity, expected.logits, rtol=0, atol=2e-5)
    for i, row in enumerate(loss):  # each example's own
        alone = theirs(**{k: v[i : i + 1] for k, v in (there | {"actions": x0, "noise": noise, "timestep": t}).items()})
        assert abs(row - alone.loss) < 1e-4
    assert abs(loss.mean() - expected.loss) < 1e-4


@torch.no_grad()
def test_a_sample_of_ten_steps(theirs, single):
    network, (here, there) = copied(theirs), observations()
    noise = torch.randn(3, H, A, generator=torch.Generator().manual_seed(3))
    expected = theirs.sample_actions(noise=noise.clone(), num_steps=10, **there)
    denoiser = Denoiser(network, Linear(), "velocity")
    context = network.context(**here)
    drawn = sample(
        denoiser, (H, A), draws=Draws(0, torch.arange(3)), steps=10, sampler="euler", start=noise, context=context
    )
    assert (expected - noise).std() > 0.1
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_float64_time_differs_by_rounding_alone(theirs):
    """2πt/p is up to 1571, and float32 has it to 1e-4."""
    network, (here, there) = copied(theirs), observations()
    x, t = torch.randn(3, H, A), torch.tensor([0.1, 0.37, 0.999])
    expected = theirs(noise=x, timestep=t, **there).logits
    assert (network(x, t, **here) - expected).abs().max() < 1e-3


@torch.no_grad()
def test_padding_tells_nothing(theirs):
    """Neither what a missing camera shows nor how long the padding is."""
    network, (here, _) = copied(theirs), observations()
    x, t = torch.randn(3, H, A), torch.rand(3)
    y = network(x, t, **here)
    blank = here["images"].clone()
    blank[~here["image_mask"]] = 0
    assert torch.equal(network(x, t, **here | {"images": blank}), y)
    longer = ActionExpert(
        H, A, observation=OBSERVATION | {"prompt": (9,)}, width=24, hidden=48, pad_to=A, prefix=network.prefix,
        **network.prefix.sizes,
    ).eval()  # fmt: skip
    longer.load_state_dict(network.state_dict())
    torch.testing.assert_close(longer(x, t, **here | {"prompt": F.pad(here["prompt"], (0, 3))}), y, rtol=0, atol=1e-5)


# --- names ------------------------------------------------------------------------------------------------------------


def test_theirs_to_ours_and_back(theirs):
    """All their names and numbers again, but for the table of words that nothing reads."""
    found, wanted = to_pi0(copied(theirs), "transformers"), theirs.state_dict()
    unused = "model.dit.embed_tokens.weight"
    assert {name: part.shape for name, part in found.items()} == {name: part.shape for name, part in wanted.items()}
    assert all(torch.equal(part, wanted[name]) for name, part in found.items() if name != unused)
    assert not found[unused].any()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_ours_to_theirs_and_back(dialect):
    network = ours()
    again = from_pi0(network, to_pi0(network, dialect))
    assert again.keys() == network.state_dict().keys()
    assert all(torch.equal(part, again[name]) for name, part in network.state_dict().items())


def test_the_published_names():
    """By hand, as in lerobot/pi0_base and lerobot/pi05_base."""
    network = ours()
    names, expert = to_pi0(network), "model.paligemma_with_expert.gemma_expert."
    language = "model.paligemma_with_expert.paligemma.model.language_model."
    for name, shape in {
        "model.paligemma_with_expert.paligemma.lm_head.weight": (300, 32),
        f"{language}layers.2.mlp.down_proj.weight": (32, 64),
        f"{language}norm.weight": (32,),
        "model.paligemma_with_expert.paligemma.model.multi_modal_projector.linear.bias": (32,),
        "model.paligemma_with_expert.paligemma.model.vision_tower.vision_model.embeddings.patch_embedding.weight":
            (16, 3, 8, 8),
        f"{expert}model.layers.0.self_attn.q_proj.weight": (32, 24),
        f"{expert}model.layers.0.self_attn.v_proj.weight": (16, 24),
        f"{expert}model.layers.1.post_attention_layernorm.weight": (24,),
        f"{expert}model.norm.weight": (24,),
        f"{expert}lm_head.weight": (300, 24),
        "model.state_proj.weight": (24, A), "model.action_in_proj.bias": (24,),
        "model.action_time_mlp_in.weight": (24, 48), "model.action_time_mlp_out.weight": (24, 24),
        "model.action_out_proj.weight": (A, 24),
    }.items():  # fmt: skip
        assert tuple(names[name].shape) == shape, name
    assert to_pi0(network, "openpi").keys() == {name.removeprefix("model.") for name in names}
    layer = network.expert.layers[1]
    assert torch.equal(names[f"{expert}model.layers.1.self_attn.k_proj.weight"], layer.qkv.weight[32:48])
    assert torch.equal(names[f"{expert}model.layers.1.mlp.up_proj.weight"], layer.gate_up.weight[48:])

    network = ours("pi05")
    names = to_pi0(network)
    assert tuple(names[f"{expert}model.layers.0.input_layernorm.dense.weight"].shape) == (72, 24)
    assert tuple(names[f"{expert}model.norm.dense.bias"].shape) == (72,)
    assert tuple(names["model.time_mlp_in.weight"].shape) == (24, 24)
    assert not any("state_proj" in name or "action_time" in name for name in names)
    again = from_pi0(network, names)
    assert all(torch.equal(part, again[name]) for name, part in network.state_dict().items())
    with pytest.raises(InputError, match=r"π0\.5"):
        to_pi0(network, "transformers")


def test_folders(theirs, tmp_path):
    """What transformers saves is read here; and what is written here under LeRobot's names, transformers reads."""
    theirs.save_pretrained(tmp_path / "theirs")
    network = ours()
    load_pi0(network, tmp_path / "theirs")
    wanted = copied(theirs).state_dict()
    assert all(torch.equal(part, wanted[name]) for name, part in network.state_dict().items())
    theirs.config.save_pretrained(tmp_path / "ours")
    save_file({k: v.contiguous() for k, v in to_pi0(network).items()}, tmp_path / "ours/model.safetensors")
    assert "model.paligemma_with_expert.paligemma.lm_head.weight" in load_file(tmp_path / "ours/model.safetensors")
    again, info = transformers.PI0ForConditionalGeneration.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    for name, part in again.state_dict().items():
        assert name == "model.dit.embed_tokens.weight" or torch.equal(part, theirs.state_dict()[name]), name


def test_what_is_refused(tmp_path):
    network = ours()
    tensors = to_pi0(network)
    with pytest.raises(InputError, match=r"no state_proj\.bias"):
        from_pi0(network, {name: part for name, part in tensors.items() if name != "model.state_proj.bias"})
    with pytest.raises(InputError, match=r"state_proj\.bias must be of shape \(24,\) here; got \(7,\)"):
        from_pi0(network, tensors | {"model.state_proj.bias": torch.zeros(7)})
    with pytest.raises(InputError, match=r"1 weights that this network has not, such as other\.weight"):
        from_pi0(network, tensors | {"model.other.weight": torch.zeros(7)})
    with pytest.raises(InputError, match="dialect must be one of transformers, lerobot, openpi"):
        to_pi0(network, "jax")
    with pytest.raises(InputError, match="no safetensors"):
        load_pi0(network, tmp_path)
    for data, says in (b"x" * 99, "not a readable"), (save({"a": torch.full((2,), torch.nan)}), "not finite"):
        (tmp_path / "model.safetensors").write_bytes(data)
        with pytest.raises(InputError, match=says):
            load_pi0(network, tmp_path)
    with pytest.raises(InputError, match="PaliGemma"):
        to_pi0(ActionExpert(H, A, observation={"state": (1, A)}))
