"""Images with what they are drawn given: made smaller, or numbers; hidden as often as asked, refused where nonsense."""

import pytest
import torch

from ebbtide.data.prepared import TensorData
from ebbtide.errors import InputError
from ebbtide.kinds.images.conditions import Told, WithGiven, enlarged, reduced
from ebbtide.kinds.images.data import fits, see
from ebbtide.recipes import super_resolution
from problems import SIGMAS


def test_a_smaller_image_is_made_of_means_and_a_plain_one_stays_so():
    x = torch.tensor([[[[0.0, 2.0, 9.0, 9.0], [4.0, 255.0, 9.0, 9.0]]]])
    assert reduced(x, 2).tolist() == [[[[65.0, 9.0]]]]  # 65.25 rounded
    assert enlarged(torch.full((1, 3, 2, 2), 7.0), 4).tolist() == torch.full((1, 3, 8, 8), 7.0).tolist()


def test_a_batch_is_given_what_its_images_are_made_smaller_to():
    """Mirrored ones too; a share is hidden as a whole: of 2000 within SIGMAS standard errors."""
    x = torch.randint(0, 256, (2000, 1, 4, 4), dtype=torch.uint8)
    data = WithGiven(TensorData(x, prepare=lambda x, draw: see(x, draw, flip=True)), 0.25, 2)
    batch = data.take(torch.arange(2000), torch.Generator().manual_seed(0))
    assert set(batch) == {"x0", "given"}
    hidden = batch["given"].isnan().flatten(1)
    assert bool((hidden.any(1) == hidden.all(1)).all())
    assert abs(float(hidden[:, 0].double().mean()) - 0.25) < SIGMAS * (0.25 * 0.75 / 2000) ** 0.5
    seen = ~hidden[:, 0]
    pixels = (127.5 * (batch["given"][seen] + 1)).round()
    torch.testing.assert_close(pixels, reduced((127.5 * (batch["x0"][seen] + 1)).round(), 2))
    assert (len(data), data.x1, data.to(torch.device("cpu")).factor) == (2000, None, 2)


def test_numbers_are_hidden_together_and_each_by_itself():
    n = 4000
    data = WithGiven(TensorData(torch.zeros(n, 1, 2, 2)), 0.2, numbers=torch.zeros(n, 3))
    hidden = data.take(torch.arange(n), torch.Generator().manual_seed(1))["given"].isnan().double()
    for share, wanted in ((hidden.prod(1), 0.2 + 0.8 * 0.2**3), (hidden[:, 1], 0.2 + 0.8 * 0.2)):
        assert abs(float(share.mean()) - wanted) < SIGMAS * (wanted * (1 - wanted) / n) ** 0.5


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"factor": 1}, "factor must be 0, for none, or at least 2; got 1."),
        ({"attributes": "a"}, "Images are drawn given smaller ones (factor) or attributes; choose one of them."),
        ({"codec": "pixels+patches:size=2"}, "factor 4 is for codec pixels; got 'pixels+patches:size=2'."),
        ({"label_dropout": 0.0}, "label_dropout must be above 0, since images are also learned without what they are"),
        ({"factor": 0, "attribute_ranges": "a=0:1"}, "attribute_ranges are of attributes, and the recipe names none."),
    ],
)
@pytest.mark.unchecked
def test_a_condition_that_cannot_be_is_one_sentence(fields, says):
    with pytest.raises(InputError) as caught:
        fits(super_resolution(**fields))
    assert str(caught.value).startswith(says)


def test_what_trajectories_are_given_stays_the_same(tmp_path):
    """Of each example, whatever is drawn; hidden as often as in training; of a mirrored set's smaller images, plain."""
    x = torch.randint(0, 256, (3000, 1, 4, 4), dtype=torch.uint8)
    told = Told.of(WithGiven(TensorData(x, prepare=see), 0.25, 2), seed=3)
    places = torch.tensor([5, 5, 0])
    first, again = (told.take(places, torch.Generator().manual_seed(k))["given"] for k in (0, 1))
    torch.testing.assert_close(first, again, equal_nan=True)
    hidden = told.given.isnan().flatten(1).all(1)
    assert abs(float(hidden.double().mean()) - 0.25) < SIGMAS * (0.25 * 0.75 / 3000) ** 0.5
    torch.testing.assert_close(told.given[~hidden], reduced(x[~hidden].float(), 2) / 127.5 - 1)
    assert (len(told), told.x1, told.to(torch.device("cpu")).given.shape) == (3000, None, (3000, 1, 2, 2))
