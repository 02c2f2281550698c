"""PaliGemma as a prefix: what goes in, what comes out, and what is refused."""

import sys

import pytest
import torch
from torch import nn

from ebbtide.errors import InputError
from ebbtide.networks.action_expert import ActionExpert
from ebbtide.networks.paligemma import PaliGemma, letterboxed, paligemma_expert

transformers = pytest.importorskip("transformers", minversion="5.4")
pytestmark = pytest.mark.filterwarnings("ignore")

H, A = 3, 2
SHAPES = {"state": (1, 3), "images": (2, 16, 16, 3), "prompt": (5,)}


def config():
    return transformers.PaliGemmaConfig(
        text_config={
            "model_type": "gemma", "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 300,
        },
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 16, "patch_size": 8, "vision_use_head": False,
        },
        projection_dim=16, image_token_id=299,
    )  # fmt: skip


def prefix(**options):
    made = PaliGemma(config(), **options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.3)
    return made.eval()


def network(**options):
    made = prefix(**options)
    variant = options.get("variant", "pi0")
    net = ActionExpert(H, A, observation=SHAPES, prefix=made, width=8, variant=variant, **made.sizes)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in [p for name, p in net.named_parameters() if not name.startswith("prefix")]:
            nn.init.normal_(parameter, std=0.4)
    return net


def observe():
    g = torch.Generator().manual_seed(5)
    return {
        "state": torch.rand(2, 1, 3, generator=g) * 2 - 1,
        "images": torch.randint(0, 256, (2, 2, 16, 16, 3), dtype=torch.uint8, generator=g),
        "image_mask": torch.tensor([[True, True], [False, True]]),
        "prompt": torch.tensor([[5, 6, 7, 8, 9], [5, 6, 0, 0, 0]]),
    }


def letters(text):
    """Ids as a tokenizer might give them."""
    return [2, *(ord(letter) - 30 if letter != "\n" else 1 for letter in text)]


def bytes_of(*texts):
    length = max(map(len, texts))
    return torch.tensor([[byte + 1 for byte in text.encode()] + [0] * (length - len(text)) for text in texts])


# --- images -----------------------------------------------------------------------------------------------------------


def test_images_are_fitted_into_a_square():
    """Two rows of four, black and white, into 2 × 2: one row of two, its neighbours' means, half a row too short."""
    row = torch.tensor([0, 0, 255, 255], dtype=torch.uint8)
    image = row[None, None, :, None].expand(1, 2, 4, 3)
    assert torch.equal(letterboxed(image, 4)[0, 0, 1:3], torch.tensor([[-1.0, -1, 1, 1]] * 2))
    assert (letterboxed(image, 4)[0, :, [0, 3]] == -1).all()
    assert letterboxed(image.transpose(1, 2), 4)[0, 0, :, 1].tolist() == [-1, -1, 1, 1]
    assert letterboxed(image, 2).shape == (1, 3, 2, 2)
    grey = torch.full((1, 7, 5, 3), 51, dtype=torch.uint8)  # 51 / 127.5 - 1 = -0.6
    found = letterboxed(grey, 14)[0, 0]
    torch.testing.assert_close(found[:, 2:12], torch.full((14, 10), -0.6))
    assert (found[:, :2] == -1).all()
    assert (found[:, 12:] == -1).all()


# --- keys and values --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_what_it_remembers():
    """Of the first layer: the turned keys of each token, alone of all others."""
    made, seen = prefix(), observe()
    memory, present = made(**{name: value for name, value in seen.items() if name != "state"})
    assert present.tolist() == [[True] * 13, [False] * 4 + [True] * 4 + [True] * 2 + [False] * 3]
    assert [[tuple(part.shape) for part in layer] for layer in memory] == [[(2, 1, 13, 8)] * 2] * 2
    layer = made.model.language_model.layers[0]
    word = made.model.get_input_embeddings().weight[6] * 4  # √16
    n = word / word.square().mean().sqrt() * (1 + layer.input_layernorm.weight)
    torch.testing.assert_close(memory[0][1][1, 0, 9], layer.self_attn.v_proj(n), rtol=0, atol=1e-4)
    k = layer.self_attn.k_proj(n)
    angle = 5 * 10_000.0 ** (-torch.arange(4) / 4)  # the sixth of those that are there
    turned = torch.cat([k[:4] * angle.cos() - k[4:] * angle.sin(), k[4:] * angle.cos() + k[:4] * angle.sin()])
    torch.testing.assert_close(memory[0][0][1, 0, 9], turned, rtol=0, atol=1e-4)


@torch.no_grad()
def test_all_see_all_that_is_there():
    made, seen = prefix(), observe()
    del seen["state"]
    usual, present = made(**seen)
    later = seen | {"prompt": torch.tensor([[5, 6, 7, 8, 99], [5, 99, 0, 0, 0]])}  # the last word, seen by the first
    found, _ = made(**later)
    for i in range(2):
        first = int(present[i].nonzero()[0])
        assert not torch.allclose(found[1][0][i, 0, first], usual[1][0][i, 0, first], atol=1e-4)
    seen["images"][1, 0] = 0
    found, _ = made(**seen)
    for layer, before in zip(found, usual):
        for part, old in zip(layer, before):
            assert torch.equal(part[1][:, present[1]], old[1][:, present[1]])


def test_nothing_there():
    net, seen = network(), observe()
    seen |= {"image_mask": torch.zeros(2, 2, dtype=torch.bool), "prompt": torch.zeros(2, 5, dtype=torch.int64)}
    y = net(torch.randn(2, H, A), torch.rand(2), **seen)
    assert bool(y.isfinite().all())
    y.sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in net.parameters())


@torch.no_grad()
@pytest.mark.parametrize("variant", ["pi0", "pi05"])
def test_the_context_replaces_the_observation(variant):
    net, seen, x = network(variant=variant), observe(), torch.randn(2, H, A)
    context = net.context(**seen)
    for t in (torch.tensor([0.2]), torch.tensor([0.1, 1.0])):
        torch.testing.assert_close(net(x, t, context=context), net(x, t, **seen), rtol=0, atol=1e-5)
    moved = net(x, t, **seen | {"state": seen["state"].flip(2)})
    assert not torch.allclose(moved, net(x, t, **seen), atol=1e-4)


@pytest.mark.parametrize("variant", ["pi0", "pi05"])
def test_what_learns(variant):
    """All but what comes after the last layer's keys and values, and SigLIP's bias of keys, which softmax ignores."""
    net = network(variant=variant).train()
    net(torch.randn(2, H, A), torch.rand(2), **observe()).square().sum().backward()
    still = {name for name, p in net.named_parameters() if p.grad is None or not bool((p.grad.abs() > 1e-9).any())}
    last = "prefix.model.language_model.layers.1."
    unused = {f"{last}{name}.weight" for name in ("self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm")}
    unused |= {f"{last}mlp.{name}_proj.weight" for name in ("gate", "up", "down")}
    unused |= {"prefix.model.language_model.norm.weight"}
    assert still - {name for name in still if name.endswith("k_proj.bias")} == unused


def test_frozen():
    net = network(frozen=True)
    net(torch.randn(2, H, A), torch.rand(2), **observe()).square().sum().backward()
    learnt = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None}
    assert learnt == {"from_action", "from_state", "time", "expert", "out"}


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_prompts_as_pi0_and_pi05_phrase_them():
    prompt, state = bytes_of("put_it\nup ", "go"), torch.tensor([[[-1.0, 0.0, 1.0]], [[0.5, -0.5, 0.995]]])
    made = prefix()
    assert made.ids(prompt, None) is prompt
    made.tokenizer = letters
    ids = made.ids(prompt, None)
    assert ids.shape == (2, 48)
    assert ids[0].tolist() == letters("put it up\n") + [0] * 37
    assert made.ids(bytes_of("a" * 46), None)[0].tolist() == letters("a" * 46 + "\n")  # 48 with both marks
    with pytest.raises(InputError, match=r"prompt of pi0 may have at most 48 tokens; got 49: 'a{47}\\n'\."):
        made.ids(bytes_of("go", "a" * 47), None)
    made = prefix(variant="pi05", tokenizer=letters)
    ids = made.ids(prompt, state)
    assert ids.shape == (2, 200)
    assert [id for id in ids[0].tolist() if id] == letters("Task: put it up, State: 0 128 255;\nAction: ")
    with pytest.raises(InputError, match=r"prompt of pi05 may have at most 200 tokens; got 201: 'Task: aaa"):
        made.ids(bytes_of("a" * 166), state[:1])  # and 1 + 6 + 28 of the rest
    assert made.ids(bytes_of("a" * 165), state[:1]).shape == (1, 200)
    made.tokenizer = None
    texts = "Task: put it up, State: 0 128 255;\nAction: ", "Task: go, State: 192 64 255;\nAction: "
    assert torch.equal(made.ids(prompt, state), bytes_of(*texts))


# --- the row ----------------------------------------------------------------------------------------------------------


def test_the_row(tmp_path):
    """A folder's weights and tokenizer, both as transformers saves them."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    saved = prefix().model
    saved.save_pretrained(tmp_path)
    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "go\n": 7}, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>", pad_token="<pad>")
    tokenizer.save_pretrained(tmp_path)
    net = paligemma_expert(H, A, observation=SHAPES, weights=str(tmp_path), width=8, hidden=12, pad_to=4, frozen=True)
    assert net.from_action.in_features == net.from_state.in_features == 4
    for name, part in net.prefix.model.state_dict().items():
        assert torch.equal(part, saved.state_dict()[name]), name
    assert net.prefix.ids(bytes_of("go"), None)[0, :3].tolist() == [2, 7, 0]
    assert net(torch.randn(2, H, A), torch.rand(2), **observe()).shape == (2, H, A)


def test_the_full_size():
    """Gemma 2B with SigLIP So400m, and an expert of 300 million (arXiv:2410.24164, Appendix B)."""
    with torch.device("meta"):
        net = paligemma_expert(
            50, 32, observation={"state": (1, 32), "images": (3, 224, 224, 3), "prompt": (48,)}, weights=""
        )
    sizes = {name: sum(p.numel() for p in part.parameters()) / 1e9 for name, part in net.named_children()}
    assert sizes["expert"] == pytest.approx(0.311, abs=0.001)
    assert sizes["prefix"] == pytest.approx(2.92, abs=0.01)


def test_what_is_refused(monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"prefix has .*'head': 8.*'head': 4"):
        made = prefix()
        ActionExpert(H, A, observation=SHAPES, prefix=made, width=8, **made.sizes | {"head": 4})
    with pytest.raises(InputError, match=f"weights '{tmp_path}' are not available"):
        PaliGemma(str(tmp_path))
    with pytest.raises(InputError, match=r"tokenizer .* is not available"):
        paligemma_expert(H, A, observation=SHAPES, weights="", tokenizer=str(tmp_path))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'ebbtide\[paligemma\]'"):
        PaliGemma(config)
