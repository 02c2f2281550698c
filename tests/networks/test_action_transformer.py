"""The transformer over a chunk: its cross-attention, places and patches. What all heads promise: test_action_unet."""

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from ebbtide.errors import InputError
from ebbtide.networks.action_transformer import ActionTransformer, CrossAttention

SEEN = {"images": (2, 16, 32, 3), "state": (1, 3)}
SMALL = {"width": 16, "depth": 2, "head": 8, "heads": 4, "channels": 16}


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(observation, horizon=6, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = ActionTransformer(horizon, 2, observation=observation, **SMALL | options)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.2)
    return made.eval()


def test_cross_attention_by_hand():
    """Values of what is real, weighted by softmax(q · k / √head), head by head."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cross = CrossAttention(8, 4)
    h, k, v = randn(2, 3, 8), randn(2, 5, 8, seed=2), randn(2, 5, 8, seed=3)
    real = torch.tensor([[True, True, False, True, False], [True] * 5])
    seen = torch.stack([k, v], 1).unflatten(3, (2, 4)).transpose(2, 3)
    for b, head in ((0, 0), (0, 1), (1, 1)):
        part = slice(4 * head, 4 * head + 4)
        q = cross.q(h[b])[:, part]
        there = real[b].nonzero().flatten()
        weights = (q @ k[b, there][:, part].T / 2).softmax(1)
        with torch.no_grad():
            cross.out.weight.copy_(torch.eye(8))
        torch.testing.assert_close(cross(h, seen, real)[b, :, part], weights @ v[b, there][:, part])


def test_blocks_attend_to_images_each_with_keys_of_its_own():
    head = network(SEEN)
    context = head.context(images=torch.randint(256, (3, *SEEN["images"]), dtype=torch.uint8), state=randn(3, 1, 3))
    assert context["seen"].shape == (3, 2, 2, 2, 1 + 4, 8)  # b, block, k or v, heads, tokens, head
    assert not torch.allclose(context["seen"][:, 0], context["seen"][:, 1])
    assert context["real"].shape == (3, 5)
    x, t = randn(3, 6, 2), torch.zeros(1)
    y = head(x, t, context=context)
    for block in range(2):
        seen = context["seen"].clone()
        seen[:, block] *= -1
        assert not torch.allclose(head(x, t, context=context | {"seen": seen}), y)


def test_the_state_alone_needs_no_attention():
    head = network({"state": (1, 3)})
    assert list(head.context(state=randn(3, 1, 3))) == ["observed"]
    assert all(block.cross is None for block in head.blocks)


@pytest.mark.parametrize("patch", [1, 2])
def test_only_positions_tell_tokens_apart(patch):
    head, x, state = network({"state": (1, 3)}, patch=patch), randn(2, 6, 2), randn(2, 1, 3)
    order = torch.tensor([2, 0, 1]) if patch == 2 else torch.tensor([3, 0, 5, 1, 2, 4])

    def permuted():
        moved = x.unflatten(1, (-1, patch))[:, order].flatten(1, 2)
        y = head(moved, torch.tensor([0.3]), state=state)
        return y.unflatten(1, (-1, patch))[:, order.argsort()].flatten(1, 2)

    y = head(x, torch.tensor([0.3]), state=state)
    assert (permuted() - y).abs().max() > 0.05 * y.std()
    nn.init.zeros_(head.positions)
    torch.testing.assert_close(permuted(), head(x, torch.tensor([0.3]), state=state), rtol=1e-4, atol=1e-4)


def test_a_patch_is_a_token():
    tokens = []
    for patch, expected in ((1, 7), (2, 4), (3, 3), (7, 1)):
        head = network({"state": (1, 3)}, horizon=7, patch=patch)
        head.blocks[0].register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].shape[1]))
        head(randn(1, 7, 2), torch.zeros(1), state=randn(1, 1, 3))
        assert tokens.pop() == expected


def test_patches_hold_actions_in_order():
    """With everything but the way in and out silent, ŷ of a patch is a linear map of its own actions."""
    head = network({"state": (1, 3)}, patch=2, depth=1)
    for block in head.blocks:
        nn.init.zeros_(block.modulation.weight), nn.init.zeros_(block.modulation.bias)
    x = randn(1, 6, 2)
    x.requires_grad_()
    y = head(x, torch.tensor([0.4]), state=randn(1, 1, 3))
    slope = torch.autograd.grad(y[:, 3].sum(), x)[0].abs().sum(2)[0]
    assert (slope > 0).nonzero().flatten().tolist() == [2, 3]


def test_attention_is_torch_s_with_nothing_masked():
    """One learnt token is always there, so an observation without a real token has something to attend to."""
    head = network({"prompt": (3,)})
    context = head.context(prompt=torch.zeros(2, 3, dtype=torch.int64))
    assert context["real"].tolist() == [[True, False, False, False]] * 2
    k, v = context["seen"][:, 0].unbind(1)
    found = scaled_dot_product_attention(k, k, v, attn_mask=context["real"][:, None, None])
    torch.testing.assert_close(found, v[:, :, :1].expand_as(found))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 0}, ("width", "1", "65536", "0")),
        ({"width": 20, "head": 8}, ("width", "head = 8", "20")),
        ({"width": 18, "head": 9}, ("width", "4", "18")),
        ({"patch": 7}, ("patch", "6", "7")),
        ({"mlp_ratio": 0.5}, ("mlp_ratio", "1", "0.5")),
        ({"dropout": -0.1}, ("dropout", "-0.1")),
        ({"layers": 65}, ("layers", "64", "65")),
    ],
)
def test_options_that_are_refused(options, words):
    with pytest.raises(InputError) as caught:
        ActionTransformer(6, 2, observation={"state": (1, 3)}, **SMALL | options)
    message = str(caught.value)
    assert message.startswith("action_transformer: ")
    assert message.endswith(".")
    for word in words:
        assert word in message, message
