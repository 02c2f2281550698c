"""The encoder of observations: places and masks of its tokens, what may influence what, and what is refused."""

import math

import pytest
import torch

import problems
from ebbtide.errors import InputError
from ebbtide.networks.observation import ObservationEncoder, RandomShift, Stem, Summary, check, check_shapes
from ebbtide.networks.parts import positions

SHAPES = {"state": (2, 3), "images": (2, 32, 48, 3), "prompt": (4,)}
CELLS = 2 * 3


def observe(b=2, shapes=SHAPES, seed=1):
    return problems.observe(b, shapes, seed)


def seeded(make, *inputs, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*inputs, **options).eval()


def encoder(shapes=SHAPES, **options):
    return seeded(ObservationEncoder, shapes, 16, **{"channels": 16} | options)


# --- tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [["state"], ["images"], ["prompt"], ["prompt", "state"], ["state", "images", "prompt"]]
)
def test_any_part_may_be_left_out(names):
    shapes = {name: SHAPES[name] for name in names}
    made = encoder(shapes)
    tokens, real = made(**observe(3, shapes))
    counts = {"images": 2 * CELLS, "prompt": 4, "state": 2}
    assert made.counts == {name: counts[name] for name in counts if name in names}
    assert tokens.shape == (3, made.tokens, 16) == (3, sum(made.counts.values()), 16)
    assert real.shape == (3, made.tokens)
    assert bool(real.all())


def test_the_order_is_images_prompt_state():
    made, seen = encoder(), observe(1)
    before, _ = made(**seen)
    for name, span in (("images", (0, 12)), ("prompt", (12, 16)), ("state", (16, 18))):
        other = made(**seen | {name: observe(1, seed=2)[name]})[0]
        changed = (other - before).abs().amax((0, 2)) > 1e-6
        expected = torch.zeros(18, dtype=torch.bool)
        expected[slice(*span)] = True
        assert torch.equal(changed, expected), name


def test_images_of_any_size_are_cells_of_16_pixels():
    for rows, columns in ((16, 16), (17, 31), (96, 96), (5, 40)):
        shapes = {"images": (1, rows, columns, 3)}
        made = encoder(shapes)
        assert made.tokens == math.ceil(rows / 16) * math.ceil(columns / 16)
        assert made(**observe(1, shapes))[0].shape == (1, made.tokens, 16)


def test_cells_lie_where_their_pixels_are():
    """Without norms, which see all of an image, a pixel reaches its own cell and at most the neighbours."""
    stem = seeded(Stem, 8, 16)
    stem.layers[1] = stem.layers[3] = stem.layers[5] = stem.layers[7] = torch.nn.Identity()
    for row, column in ((0, 4), (2, 0), (3, 1)):
        dark = torch.zeros(1, 64, 80, 3, dtype=torch.uint8)
        bright = dark.clone()
        bright[:, 16 * row + 8, 16 * column + 8] = 255
        reached = (stem(bright) - stem(dark)).abs().sum(1)[0] > 1e-6
        assert bool(reached[row, column])
        assert all(abs(y - row) <= 1 and abs(x - column) <= 1 for y, x in reached.nonzero().tolist())


def test_pixels_become_minus_one_to_one():
    class First(torch.nn.Module):
        weight = torch.zeros(1)

        def forward(self, x):
            return x

    stem = Stem(8, 16)
    stem.layers = torch.nn.Sequential(First())
    x = stem(torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3).expand(1, 16, 16, 3))
    torch.testing.assert_close(x[0, :, 5, 7], torch.tensor([-1.0, -0.6, 1.0]))
    assert float(x[0, :, 0, 0].abs().max()) == 0


def test_equal_parts_are_told_apart_by_their_places():
    made, seen = encoder(), observe(1)
    seen["images"], seen["prompt"] = torch.full_like(seen["images"], 9), torch.full_like(seen["prompt"], 7)
    seen["state"] = seen["state"][:, :1].expand(-1, 2, -1)
    tokens = made(**seen)[0][0].detach()
    assert float(torch.cdist(tokens, tokens).fill_diagonal_(math.inf).min()) > 0.05


def test_positions_by_hand():
    torch.testing.assert_close(
        positions(3, 4)[2],
        torch.tensor([math.sin(2), math.sin(2 / 100), math.cos(2), math.cos(2 / 100)]),
    )


# --- masks --------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_masked():
    seen = observe(2)
    seen["prompt"][1, 2:] = 0
    mask = torch.tensor([[True, False], [True, True]])
    _, real = encoder()(**seen, image_mask=mask)
    assert real[0].tolist() == [True] * 6 + [False] * 6 + [True] * 6
    assert real[1].tolist() == [True] * 12 + [True, True, False, False] + [True] * 2


def test_a_missing_image_and_padding_do_not_reach_the_summary():
    made, seen = seeded(Summary, SHAPES, 8, width=16, channels=16), observe(2)
    seen["prompt"][:, 2:] = 0
    mask = torch.tensor([[True, False]] * 2)
    before = made(**seen, image_mask=mask)[0]
    other = seen["images"].clone()
    other[:, 1] = 255 - other[:, 1]
    assert torch.equal(made(**seen | {"images": other}, image_mask=mask)[0], before)
    with torch.no_grad():
        made.encoder.byte.weight[0] = 100.0
        made.encoder.place[2:] = 100.0
    torch.testing.assert_close(made(**seen, image_mask=mask)[0], before)
    other[:, 0] = 255 - other[:, 0]
    assert not torch.allclose(made(**seen | {"images": other}, image_mask=mask)[0], before)
    assert not torch.allclose(made(**seen)[0], before)


def test_a_summary_of_nothing_is_finite():
    """No image and no prompt: then the vector is that of the state alone."""
    made, seen = seeded(Summary, SHAPES, 8, width=16, channels=16), observe(2)
    seen["prompt"].zero_()
    mask = torch.zeros(2, 2, dtype=torch.bool)
    found = made(**seen, image_mask=mask)[0]
    assert bool(found.isfinite().all())
    assert torch.equal(
        made(**observe(2, seed=2) | {k: seen[k] for k in ("state", "prompt")}, image_mask=mask)[0], found
    )
    assert not torch.allclose(made(**seen | {"state": -seen["state"]}, image_mask=mask)[0], found)


# --- the summary --------------------------------------------------------------------------------------------------


def test_attention_can_say_where_something_is():
    """By hand: sharp scores pick one cell, and its value goes through; two equal ones give the mean."""
    made = seeded(Summary, {"images": (1, 16, 48, 3)}, 8, width=4, heads=2, channels=16)
    with torch.no_grad():
        made.score.weight.copy_(torch.tensor([[9.0, 0, 0, 0], [0, 9, 0, 0]]))
        made.value.weight.copy_(torch.eye(4))
        made.value.bias.zero_()
    tokens = torch.tensor([[[0.0, 5, 1, 2], [5, 5, 3, 4], [0, 0, 5, 6]]])
    (pooled,) = made.pool(tokens, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(pooled, torch.tensor([[5.0, 5, 2, 3]]))  # head 1: cell 2; head 2: cells 1 and 2


def test_the_state_alone_goes_in_as_it_is():
    made = seeded(Summary, {"state": (2, 3)}, 8, depth=0)
    assert made.encoder is None
    state = observe(4, {"state": (2, 3)})["state"]
    h, tokens, real = made(state=state)
    torch.testing.assert_close(h, state.flatten(1) @ made.enter.weight.T + made.enter.bias)
    assert tokens is None
    assert real is None


def test_every_parameter_learns():
    made = Summary(SHAPES, 8, width=16, channels=16)
    seen = observe(3)
    seen["prompt"][0, 1:] = 0
    made(**seen)[0].square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


# --- shifts -------------------------------------------------------------------------------------------------------


def test_shifts_move_all_of_an_example_s_images_and_repeat_edges():
    rows = torch.arange(8, dtype=torch.uint8)[:, None, None]
    columns = 16 * torch.arange(10, dtype=torch.uint8)[:, None]
    images = (rows + columns).expand(64, 2, 8, 10, 3).contiguous()
    shift = RandomShift(2).train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        moved = shift(images)
        torch.manual_seed(0)
        assert torch.equal(shift(images), moved)
    assert moved.shape == images.shape
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert torch.equal(moved[..., 0], moved[..., 2])
    found = {(int(part[4, 5] % 16) - 4, int(part[4, 5]) // 16 - 5) for part in moved[:, 0, :, :, 0]}
    assert len(found) >= 15  # of 25, in 64 draws
    assert {y for y, _ in found} == {x for _, x in found} == {-2, -1, 0, 1, 2}
    for part in moved[:, 0, :, :, 0]:
        y, x = int(part[4, 5] % 16) - 4, int(part[4, 5]) // 16 - 5
        expected = (torch.arange(8) + y).clamp(0, 7)[:, None] + 16 * (torch.arange(10) + x).clamp(0, 9)
        assert torch.equal(part.int(), expected.int())


def test_shifts_are_for_training():
    images = observe()["images"]
    assert RandomShift(4).eval()(images) is images
    assert RandomShift(0).train()(images) is images
    assert RandomShift(4).draws
    assert not RandomShift(0).draws
    made = encoder().train()
    assert not torch.equal(made(**observe())[0], made(**observe())[0])


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.unchecked  # else the check of types refuses them first
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": None}, ("state", "missing", "state, images, prompt")),
        ({"poses": torch.zeros(2, 3)}, ("'poses'", "state, images, prompt")),
        ({"state": torch.zeros(2, 2, 4)}, ("state", "(b, 2, 3)", "(2, 2, 4)")),
        ({"state": torch.zeros(2, 3)}, ("state", "(b, 2, 3)", "(2, 3)")),
        ({"state": torch.zeros(2, 2, 3, dtype=torch.int64)}, ("state", "float32", "int64")),
        ({"state": torch.full((2, 2, 3), math.nan)}, ("state", "finite", "NaN")),
        ({"state": torch.full((2, 2, 3), math.inf)}, ("state", "finite")),
        ({"state": torch.zeros(3, 2, 3)}, ("as many", "2 and 3")),
        ({"images": torch.zeros(2, 2, 32, 48, 3)}, ("images", "uint8", "float32")),
        ({"images": torch.zeros(2, 2, 3, 9, 9).byte()}, ("images", "(b, 2, 32, 48, 3)", "(2, 2, 3, 9, 9)")),
        ({"image_mask": torch.ones(2, 3, dtype=torch.bool)}, ("image_mask", "(b, 2)", "(2, 3)")),
        ({"image_mask": torch.ones(2, 2)}, ("image_mask", "bool", "float32")),
        ({"prompt": torch.full((2, 4), 257)}, ("prompt", "0 to 256")),
        ({"state": [[0.0]]}, ("state", "a tensor", "[[0.0]]")),
        ({"prompt": torch.full((2, 4), -1)}, ("prompt", "0 to 256")),
        ({"prompt": torch.zeros(2, 5, dtype=torch.int64)}, ("prompt", "(b, 4)", "(2, 5)")),
    ],
)  # fmt: skip
def test_observations_that_are_refused(change, words):
    with pytest.raises(InputError) as caught:
        check(SHAPES, observe() | change)
    message = str(caught.value)
    assert message.endswith(".")
    for word in words:
        assert word in message, message


def test_observations_that_are_not_refused():
    check(SHAPES, observe())
    check(SHAPES, observe() | {"image_mask": None})
    check(SHAPES, observe() | {"image_mask": torch.ones(2, 2, dtype=torch.bool)})
    check(SHAPES, observe() | {"state": torch.zeros(2, 2, 3, dtype=torch.float64)})
    with pytest.raises(InputError, match="image_mask"):
        check({"state": (2, 3)}, observe(2, {"state": (2, 3)}) | {"image_mask": torch.ones(2, 2, dtype=torch.bool)})


@pytest.mark.unchecked  # else the check of types refuses them first
@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({}, ("something", "nothing")),
        ({"image": (1, 9, 9, 3)}, ("images, prompt, state", "'image'")),
        ({"state": (3,)}, ("state", "(o, s)", "(3,)")),
        ({"state": (0, 3)}, ("state", "(0, 3)")),
        ({"state": (1.5, 3)}, ("state", "(1.5, 3)")),
        ({"state": 3}, ("state", "a tuple or a list", "3")),
        ([("state", (1, 3))], ("shapes", "Mapping")),
        ({"prompt": (1, 3)}, ("prompt", "(l,)", "(1, 3)")),
        ({"images": (2, 3, 96, 96)}, ("images", "(k, h, w, 3)", "(2, 3, 96, 96)")),
    ],
)
def test_shapes_that_are_refused(shapes, words):
    with pytest.raises(InputError) as caught:
        check_shapes(shapes)
    for word in words:
        assert word in str(caught.value), caught.value


@pytest.mark.unchecked  # else the check of types refuses them first
@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (ObservationEncoder, {"width": 18}, ("width", "multiple of 4", "18")),
        (ObservationEncoder, {"width": "16"}, ("width", "a whole number", "'16'")),
        (Summary, {"out": 8, "width": 16, "heads": 2.0}, ("heads", "a whole number", "2.0")),
        (ObservationEncoder, {"width": 16, "channels": 1}, ("channels", "2", "1")),
        (ObservationEncoder, {"width": 16, "shift": -1}, ("shift", "0", "-1")),
        (Summary, {"out": 8, "width": 16, "heads": 3}, ("heads", "16", "3")),
    ],
)
def test_options_that_are_refused(make, options, words):
    with pytest.raises(InputError) as caught:
        make(SHAPES, **options)
    for word in ("observation: ", *words):
        assert word in str(caught.value), caught.value
