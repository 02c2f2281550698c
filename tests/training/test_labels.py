"""The labels of samples: refused where they were never learned, else as often as in the data."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ebbtide.core.guidance import Bounded, ClassifierFree
from ebbtide.core.randomness import Draws
from ebbtide.data import save_points
from ebbtide.errors import InputError
from ebbtide.kinds.runs import from_pretrained
from ebbtide.training.trained import Trained
from training.runs import run, sentence, tiny

SMALL = {"steps": 3}


@pytest.fixture(scope="module")
def conditional(tmp_path_factory) -> Trained:
    """A run on three classes that are equally frequent."""
    return learned(tmp_path_factory.mktemp("conditional"))


def learned(tmp_path, name="conditional", **changes) -> Trained:
    """What a run that was trained like this gives back."""
    run(tiny(name, **changes), tmp_path / "run")
    return from_pretrained(tmp_path / "run")


def uneven(tmp_path, counts=(5, 190, 0, 15)) -> str:
    """An .npz of points around their label, whose classes are not equally frequent."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = 10.0 * labels[:, None] + torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(0))
    save_points(tmp_path / "uneven.npz", x, labels=labels)
    return str(tmp_path / "uneven.npz")


def test_where_classes_are_called_by_whole_numbers_a_number_is_a_name(conditional):
    """Labels 2, 7, 12: 2 and "2" are the class of that name, never the one of that index; a tensor's are indices."""
    trained = replace(conditional, classes=("12", "2", "7"))
    for label in (2, "2", np.int64(2), np.array(2), [2], (2,), ["2"], np.array([2])):
        assert trained.labels(label, 3).tolist() == [1, 1, 1], label
    for label in ([7, 12, 2], ["7", "12", "2"], np.array([7, 12, 2], np.uint8)):
        assert trained.labels(label, 3).tolist() == [2, 0, 1], label
    assert trained.labels(torch.tensor([2, 0, 1]), 3).tolist() == [2, 0, 1]
    for label in (0, 1, "0", "1", [2, 1, 7], ["2", "0", "7"], True, 2.0, 10**30):
        with pytest.raises(InputError, match="label must be one") as refused:
            trained.labels(label, 3)
        sentence(refused.value)
        assert "'12'" in str(refused.value) or "12, 2, 7" in str(refused.value)


def test_a_column_of_a_data_frame_holds_names(conditional):
    pandas = pytest.importorskip("pandas")
    trained = replace(conditional, classes=("12", "2", "7"))
    for column in ([7, 12, 2], ["7", "12", "2"]):
        assert trained.labels(pandas.Series(column), 3).tolist() == [2, 0, 1], column


def test_names_go_one_by_one_to_samples_and_elsewhere_a_number_is_an_index(conditional):
    trained = replace(conditional, classes=("a", "b", "c"))
    for label in (
        ["b", "c", "a"],
        np.array(["b", "c", "a"]),
        [1, 2, 0],
        np.array([1, 2, 0]),
    ):
        assert trained.labels(label, 3).tolist() == [1, 2, 0], label
    assert trained.labels("1", 1).tolist() == trained.labels(1, 1).tolist() == [1]
    with pytest.raises(InputError, match="label must be one of a, b, c; got 'd'"):
        trained.labels(["a", "b", "d"], 3)
    one, other = (trained.labels(label, 2) for label in (["c"], "c"))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    "label",
    ["up", "3", 3, -1, [0, 1], [0, 1, 3, 0], [0.5] * 4, torch.tensor([0.0]), torch.tensor([True] * 4), "", "1.0"],
)
def test_labels_that_are_none_are_refused(conditional, label):
    with pytest.raises(InputError, match="label must be one") as refused:
        conditional.labels(label, 4)
    sentence(refused.value)


def test_where_no_label_was_hidden_each_is_drawn_as_often_as_in_the_data(tmp_path):
    """Sample i's label depends on (seed, i) alone. 4000 draws of 5, 190 and 15 in 210, within 6 standard errors."""
    trained = learned(tmp_path, data=uneven(tmp_path), label_dropout=0.0, held_out=0.0)
    assert trained.classes == ("0", "1", "3")
    assert trained.frequencies == pytest.approx((5 / 210, 190 / 210, 15 / 210))
    draw = lambda n, seed, first=0: trained.labels(None, n, Draws.first(n, seed, first))
    labels = draw(4000, 1)
    for k, share in enumerate(trained.frequencies):
        assert abs(int((labels == k).sum()) - 4000 * share) < 6 * math.sqrt(4000 * share)
    assert torch.equal(draw(10, 1, 500), labels[500:510])
    assert not torch.equal(draw(4000, 2), labels)
    torch.testing.assert_close(trained.sample(6, seed=1, **SMALL), trained.sample(6, seed=1, label=labels[:6], **SMALL))
    x = torch.zeros(1, 2)
    with pytest.raises(InputError, match="never learned to do without a label"):
        trained.denoiser(x, 0.5)
    with pytest.raises(InputError, match="trained with label_dropout above 0"):
        trained.sample(2, label=0, guidance=2.0)
    with pytest.raises(InputError, match="trained with label_dropout above 0"):
        ClassifierFree(Bounded(trained.denoiser), 2.0, 3)


def test_where_every_label_was_hidden_none_can_be_asked_for(tmp_path):
    trained = learned(tmp_path, label_dropout=1.0)
    assert trained.in_turn(4) is trained.in_proportion(4) is None
    assert trained.labels(None, 2).tolist() == [3, 3]
    with pytest.raises(InputError, match="learned no labels"):
        trained.sample(2, label=0)


def test_a_class_without_an_example_cannot_be_asked_for(conditional):
    trained = replace(conditional, frequencies=(0.25, 0.0, 0.75))
    assert trained.in_turn(5).tolist() == [0, 2, 0, 2, 0]
    assert trained.in_proportion(8).tolist() == [2, 0, 2, 2, 2, 0, 2, 2]
    for label in ("left", 1, [0, 1, 2]):
        with pytest.raises(InputError, match=r"label 'left' can't be asked for: training had no example of it\."):
            trained.sample(3, label=label)


def test_equally_frequent_classes_are_drawn_in_turn_and_others_in_proportion(conditional):
    """Every class within one of its share after any number of samples."""
    assert conditional.frequencies == (1 / 3,) * 3
    assert conditional.in_proportion(1000).tolist() == [i % 3 for i in range(1000)]
    for shares in ((0.95, 0.05), (0.5, 0.3, 0.2), (1.0,), (1e-6, 1 - 1e-6)):
        labels = replace(conditional, classes=tuple("abc"[: len(shares)]), frequencies=shares).in_proportion(2000)
        assert len(labels) == 2000
        for k, share in enumerate(shares):
            off = (labels == k).cumsum(0) - share * torch.arange(1, 2001)
            assert off.abs().max() <= 1, shares
