"""All densities of a single point, as a figure and as a film."""

import numpy as np
import pytest
from PIL import Image

from ebbtide.core.paths import PATHS, Linear
from ebbtide.errors import InputError
from ebbtide.plots.continuum import continuum, continuum_film


@pytest.mark.parametrize("name", list(PATHS))
def test_the_lines_are_the_mean_and_a_standard_deviation_around_it(name):
    """Of linear, from 2: at t = 1/2 the mean is 1 and σ is 1/2."""
    figure = continuum(PATHS[name](), name, start=2.0)
    bands, densities = figure.axes
    mean, below, above = (np.asarray(line.get_ydata()) for line in bands.lines)
    assert mean[0] == 2
    assert np.allclose((below + above) / 2, mean)
    if name == "linear":
        middle = len(mean) // 2
        assert (mean[middle], below[middle], above[middle]) == pytest.approx((1.0, 0.5, 1.5))
    image = bands.images[0].get_array()
    assert image.max() == 1
    rows = np.linspace(*bands.get_ylim(), len(image))
    assert np.abs(rows[image.argmax(0)] - mean).max() < 1.5 * (rows[1] - rows[0])
    assert [text.get_text() for text in densities.texts][-1] == "t = 1 noise"
    figure.canvas.draw()


def test_the_film_moves_from_data_to_noise(tmp_path):
    """The filled density on the right: narrow and high up at first, wide and in the middle in the end."""
    file = continuum_film(tmp_path / "a.gif", Linear(), start=3.0, frames=4)
    with Image.open(file) as film:
        assert film.n_frames == 4
        frames = []
        for k in range(4):
            film.seek(k)
            frames.append(np.asarray(film.convert("RGB")).astype(int))
    height, width, _ = frames[0].shape
    right = [frame[height // 5 : -height // 5, width // 2 + 40 :] for frame in frames]
    coloured = [np.abs(part - part.mean(2, keepdims=True)).sum(2) > 40 for part in right]
    rows = [part.any(1).nonzero()[0] for part in coloured]
    assert np.ptp(rows[0]) < np.ptp(rows[1]) < np.ptp(rows[3])
    assert rows[0].mean() < rows[1].mean() < rows[3].mean()


def test_what_can_not_be_drawn_is_said(tmp_path):
    with pytest.raises(InputError, match="start must be finite"):
        continuum(Linear(), start=float("nan"))
    with pytest.raises(InputError, match="frames must be"):
        continuum_film(tmp_path / "a.gif", Linear(), frames=1)
    with pytest.raises(InputError, match=r"must end in \.mp4 or \.gif"):
        continuum_film(tmp_path / "a.png", Linear(), frames=2)
