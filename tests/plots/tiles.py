"""Images to draw, and how to cut a drawn mosaic back into them."""

import numpy as np


def noise_pictures(*shape, seed=0):
    """Random pixels of 0..199: no white, which is the gap's."""
    return np.random.default_rng(seed).integers(0, 200, shape, dtype=np.uint8)


def runs(dark):
    """(start, stop) of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], dark.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def cut(mosaic, size):
    """Tiles[row][column] of a mosaic (height, width, 3) in RGB, shrunk to `size` = (h, w); a white place is None.

    Fails where a tile isn't made of equal squares, one for each pixel.
    """
    dark = (mosaic != 255).any(2)
    rows, columns = runs(dark.any(1)), runs(dark.any(0))
    cells = []
    for top, bottom in rows:
        cells.append([])
        for left, right in columns:
            tile = mosaic[top:bottom, left:right]
            if (tile == 255).all():
                cells[-1].append(None)
                continue
            factor = (bottom - top) // size[0]
            assert tile.shape[:2] == (size[0] * factor, size[1] * factor)
            small = tile[::factor, ::factor]
            np.testing.assert_array_equal(tile, small.repeat(factor, 0).repeat(factor, 1))
            cells[-1].append(small)
    return cells


def drawn(figure):
    """The pixels of a figure's only panel, read from the rendered canvas."""
    figure.canvas.draw()
    canvas = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    (ax,) = figure.axes
    box = ax.get_window_extent()
    left, right, low, high = (round(v) for v in (box.x0, box.x1, box.y0, box.y1))
    return canvas[len(canvas) - high : len(canvas) - low, left:right]


def colour_at(figure, ax, x, y):
    """The rendered colour, RGB in 0..255, where a panel has the place (x, y) of the data."""
    figure.canvas.draw()
    canvas = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    across, up = ax.transData.transform((x, y))
    return canvas[len(canvas) - 1 - int(up), int(across)]


def words(figure):
    return [
        text.get_text() for text in [*figure.texts, *(t for ax in figure.axes for t in ax.texts)] if text.get_text()
    ]


def mosaic_of(figure):
    """The array that a figure's only panel draws."""
    (ax,) = figure.axes
    return np.asarray(ax.images[0].get_array())


def channels_last(pictures):
    """(…, c, h, w) → (…, h, w, 3), grey repeated."""
    x = np.moveaxis(pictures, -3, -1)
    return np.repeat(x, 3, -1) if x.shape[-1] == 1 else x
