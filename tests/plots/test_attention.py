import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ebbtide.errors import InputError
from ebbtide.plots.attention import attention
from plots.material import inside
from plots.tiles import words


def test_the_mask_is_drawn_cell_by_cell_in_the_seen_blocks_colour():
    # Two prefix tokens, the second one padding; a state; an action.
    mask = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]], bool)
    padded = np.array([False, True, False, False])
    figure = attention(mask, [("prefix", 2), ("state", 1), ("actions", 1)], padded=padded)
    (ax,) = figure.axes
    picture = np.asarray(ax.images[0].get_array())
    blue, green, orange = (to_rgb(tint) for tint in ("#56B4E9", "#009E73", "#E69F00"))
    white, grey = (1.0, 1.0, 1.0), to_rgb("#DADADA")
    expected = [
        [blue, grey, white, white],
        [grey, grey, grey, grey],
        [blue, grey, green, white],
        [blue, grey, green, orange],
    ]
    np.testing.assert_allclose(picture, expected)
    assert tuple(ax.images[0].get_extent()) == (0, 4, 4, 0)
    assert [text.get_text() for text in ax.texts] == ["prefix", "prefix", "state", "state", "actions", "actions"]
    assert "padding" in " ".join(words(figure))
    inside(figure)


def test_a_block_that_is_a_hairline_is_not_drawn_over():
    owner = np.repeat([0, 1, 2], [256, 1, 50])
    figure = attention(owner[:, None] >= owner, [("prefix", 256), ("state", 1), ("actions", 50)])
    assert sum(len(c.get_segments()) for c in figure.axes[0].collections) == 0
    inside(figure)


@pytest.mark.parametrize("blocks", [[("a", 2)], [("a", 3), ("b", 0)], []])
def test_blocks_must_fill_the_mask(blocks):
    with pytest.raises(InputError, match="blocks"):
        attention(np.ones((3, 3), bool), blocks)
