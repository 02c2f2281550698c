"""Hugging Face data sets: with the package `datasets` where it is installed, else with one that stands in for it."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image as Pillow

from ebbtide.cache import cache_folder
from ebbtide.data.images import labelled, load_images, split_images
from ebbtide.errors import InputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))


def png(value, size=(3, 2)):
    file = io.BytesIO()
    Pillow.new("L", size, value).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


# The least of `datasets` that is used, with its own names.
class Image:
    def __init__(self, decode=True):
        pass


class ClassLabel:
    def __init__(self, names):
        self.names = names


class Value:
    pass


class Dataset:
    def __init__(self, features, columns, fingerprint="f"):
        self.features, self.columns, self._fingerprint = features, columns, fingerprint

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        return self.columns[key] if isinstance(key, str) else {name: held[key] for name, held in self.columns.items()}

    def select_columns(self, names):
        return Dataset(*({name: held[name] for name in names} for held in (self.features, self.columns)))

    def cast_column(self, name, feature):
        return self


@pytest.fixture
def hub(monkeypatch):
    """A hub: name → data set; what was asked for is kept in `asked`."""
    sets, asked = {}, []

    def load_dataset(name, config=None, revision=None):
        asked.append((name, config, *[revision] * (revision is not None)))
        if name not in sets:
            raise ConnectionError(f"Couldn't reach\n'{name}' on the Hub.")
        return sets[name]

    module = types.SimpleNamespace(load_dataset=load_dataset, load_from_disk=None, Image=Image)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return types.SimpleNamespace(sets=sets, asked=asked)


def part(values, labels=(), feature=None, **options):
    labels = list(labels or ()) or [0] * len(values)
    features = {"id": Value(), "picture": Image(), "kind": feature or ClassLabel(["cat", "ant"])}
    columns = {"id": [str(k) for k in range(len(values))], "picture": [png(v) for v in values], "kind": labels}
    return Dataset(features, columns, **options)


def get(name, **options):
    return load_images(f"hf:{name}", progress=False, **options)


def test_a_revision_is_named_behind_an_at(hub):
    hub.sets["a/b"] = {"train": part([1, 2])}
    for name, asked in (("a/b@v2", ("a/b", None, "v2")), ("a/b@pr/1:small", ("a/b", "small", "pr/1"))):
        assert len(get(name).x) == 2
        assert hub.asked[-1] == asked


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"^data 'hf:a/b' needs the package datasets: pip install datasets\.$"):
        get("a/b")


def test_columns_are_found_by_their_kind(hub):
    hub.sets["me/pets"] = {"train": part([1, 2, 3], [0, 1, 1])}
    found = get("me/pets")
    assert found.x.shape == (3, 1, 2, 3)
    assert found.x[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert found.labels.tolist() == [0, 1, 1]
    assert found.classes == ("cat", "ant")  # in the set's order
    assert found.test == 0
    assert hub.asked == [("me/pets", None)]


def test_a_config(hub):
    hub.sets["me/pets"] = part([1, 2])
    assert len(get("me/pets:small").x) == 2
    assert hub.asked == [("me/pets", "small")]


@pytest.mark.parametrize("name", ["test", "validation", "valid"])
def test_the_test_part_comes_last(hub, name):
    hub.sets["me/pets"] = {name: part([8, 9], [1, 0]), "train": part([1, 2, 3]), "more": part([5])}
    found = get("me/pets")
    assert found.test == 2
    train, test = split_images(found, 0.0)
    assert train.x[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert test.x[:, 0, 0, 0].tolist() == [8, 9]
    assert test.labels.tolist() == [1, 0]


def test_a_bad_one_in_the_test_part(hub):
    test = part(range(20), [k % 2 for k in range(20)])
    test.columns["picture"][3] = {"bytes": b"", "path": None}
    test.columns["picture"][5] = None
    hub.sets["me/pets"] = {"train": part(range(30)), "test": test}
    found = get("me/pets")
    assert found.bad == ("row 34 is empty", "row 36 is missing")
    assert (len(found.x), found.test) == (48, 18)
    assert split_images(found, 0.0)[1].x[:, 0, 0, 0].tolist() == [k for k in range(20) if k not in (3, 5)]
    assert found.labels.tolist() == [0] * 30 + [k % 2 for k in range(20) if k not in (3, 5)]


def test_one_part_of_any_name(hub):
    hub.sets["me/pets"] = {"test": part([1, 2])}
    found = get("me/pets")
    assert (len(found.x), found.test) == (2, 0)
    hub.sets["me/pets"] = {"a": part([1]), "b": part([1])}
    with pytest.raises(InputError, match="hf:me/pets has no part to train on; it has 'a', 'b'"):
        get("me/pets")


def test_a_label_by_name(hub):
    hub.sets["me/pets"] = part([1, 2, 3], ["b", "a", "b"], Value())
    assert get("me/pets").labels is None
    found = get("me/pets", label="kind")
    assert found.labels.tolist() == [1, 0, 1]
    assert found.classes == ("a", "b")
    with pytest.raises(InputError, match=r"has no column 'sort'; it has 'id', 'picture', 'kind'"):
        get("me/pets", label="sort")


def test_attributes_are_columns_of_numbers(hub):
    """Of every part, NaN where one is missing; anything else in them is one sentence."""
    hub.sets["me/faces"] = {"train": part([1, 2, 3]), "test": part([4])}
    for name, ages, smiles in (("train", [20, None, 40], [True, False, True]), ("test", [31.5], [False])):
        hub.sets["me/faces"][name].features |= {"age": Value(), "smile": Value()}
        hub.sets["me/faces"][name].columns |= {"age": ages, "smile": smiles}
    found = get("me/faces", attributes="age, smile")
    assert found.names == ("age", "smile")
    assert found.numbers.tolist()[0::2] == [[20, 1], [40, 1]]
    assert found.numbers[1].isnan().tolist() == [True, False]
    assert (found.numbers[3].tolist(), found.test) == ([31.5, 0], 1)
    for attributes, says in (
        ("agee", "has no column 'agee' for attributes; it has 'id', 'picture', 'kind', 'age', 'smile'"),
        ("age,id", "attributes must be finite numbers; its column 'id' has '0'"),
        ("age,age", "attributes need different names"),
    ):
        with pytest.raises(InputError, match=says):
            get("me/faces", attributes=attributes)


@pytest.mark.parametrize("missing", [[-1, -1, -1], [None, None, None], [-1, None, -1], "no column"])
def test_a_test_part_without_labels(hub, missing):
    test = part([7, 8, 9], None if missing == "no column" else missing)
    if missing == "no column":
        del test.features["kind"], test.columns["kind"]
    hub.sets["me/pets"] = {"train": part([1, 2, 3, 4], [0, 1, 0, 1]), "test": test}
    found = get("me/pets")
    assert found.labels.tolist() == [0, 1, 0, 1, -1, -1, -1]
    train, held = split_images(found, 0.5)
    assert (train.labels.tolist(), held.labels, held.x[:, 0, 0, 0].tolist()) == ([0, 1, 0, 1], None, [7, 8, 9])
    with pytest.warns(UserWarning, match="3 of 3 held-out images are left out"):
        train, held = split_images(labelled(found, "pets"), 0.5)
    assert sorted(train.x[:, 0, 0, 0].tolist() + held.x[:, 0, 0, 0].tolist()) == [1, 2, 3, 4]
    assert len(held.labels) == 2


def test_labels_that_are_integers_of_no_class(hub):
    """Without names -1 is a number like others, but a class that is never trained can't be learned."""
    train, test = part([1, 2], [5, 6], Value()), part([3, 4], [-1, 6], Value())
    hub.sets["me/pets"] = {"train": train, "test": test}
    found = get("me/pets", label="kind")
    assert (found.labels.tolist(), found.classes) == ([0, 1, -1, 1], ("5", "6"))


def test_no_row_has_a_label(hub):
    for labels in ([-1, -1], [None, None]):
        hub.sets["me/pets"] = part([1, 2], labels)
        assert get("me/pets").labels is None


def test_unlabelled_rows_to_train_on(hub):
    for missing in (-1, None):
        hub.sets["me/pets"] = part([1, 2], [0, missing])
        found = get("me/pets")
        assert split_images(found, 0.0)[0].labels is None
        with pytest.raises(InputError, match=r"^pets: image 2 has no label"):
            labelled(found, "pets")
    hub.sets["me/pets"] = part([1, 2], [0, 2])
    with pytest.raises(InputError, match=r"label 2 of image 2 is not in 0\.\.1"):
        get("me/pets")


def test_every_part_to_measure_with_is_held_out(hub):
    hub.sets["me/pets"] = {"validation": part([5]), "test": part([8, 9]), "train": part([1, 2, 3]), "extra": part([6])}
    with pytest.warns(UserWarning, match=r"3 images .*\('train'\), 3 held out .*, 1 left out \('extra'\)\.$"):
        found = get("me/pets")
    assert (found.x[:, 0, 0, 0].tolist(), found.test) == ([1, 2, 3, 5, 8, 9], 3)


def test_no_pictures(hub):
    hub.sets["me/text"] = Dataset({"text": Value()}, {"text": ["a", "b"]})
    with pytest.raises(InputError, match="hf:me/text has no column of images; it has 'text'"):
        get("me/text")


def test_what_the_hub_says_comes_through(hub):
    with pytest.raises(InputError) as error:
        get("no/such")
    assert str(error.value) == "hf:no/such can't be loaded: Couldn't reach 'no/such' on the Hub."
    with pytest.raises(InputError, match="data must be hf:NAME"):
        get("")


def test_pictures_beside_the_set(hub, tmp_path):
    """Rows may name a file instead of holding its bytes."""
    held = part([1, 2])
    (tmp_path / "a.png").write_bytes(png(7)["bytes"])
    held.columns["picture"][0] = {"bytes": None, "path": str(tmp_path / "a.png")}
    hub.sets["me/pets"] = held
    assert get("me/pets").x[:, 0, 0, 0].tolist() == [7, 2]


def test_the_cache_follows_the_fingerprint(hub):
    hub.sets["me/pets"] = part([1, 2])
    get("me/pets")
    hub.sets["me/pets"] = part([3, 4])  # the same fingerprint: taken for the same
    assert get("me/pets").x[:, 0, 0, 0].tolist() == [1, 2]
    hub.sets["me/pets"] = part([3, 4], fingerprint="g")
    assert get("me/pets").x[:, 0, 0, 0].tolist() == [3, 4]
    hub.sets["me/others"] = part([5, 6], fingerprint="")
    get("me/others")
    assert len(list(cache_folder().iterdir())) == 1


@pytest.mark.parametrize("name", ["image", "img"])
@pytest.mark.parametrize("first", [True, False])
def test_the_column_called_image_is_taken(hub, name, first):
    """Whether masks and depths come before it or behind it."""
    others = {"mask": [0, 0], "depth": [99, 99]}
    values = {name: [1, 2]} | others if first else others | {name: [1, 2]}
    columns = {column: [png(value) for value in held] for column, held in values.items()}
    hub.sets["me/scenes"] = Dataset(dict.fromkeys(columns, Image()), columns)
    assert get("me/scenes").x[:, 0, 0, 0].tolist() == [1, 2]


def test_the_first_column_of_pictures_where_none_is_called_image(hub):
    columns = {"text": ["a", "b"], "left": [png(1), png(2)], "right": [png(3), png(4)]}
    kinds = {"text": Value(), "left": Image(), "right": Image()}
    hub.sets["me/pairs"] = Dataset(kinds, columns)
    assert get("me/pairs").x[:, 0, 0, 0].tolist() == [1, 2]


def test_the_range_of_16_bits_is_that_of_both_parts(hub):
    """300 to 2200 in the training part, up to 4095 in the test part."""

    def deep(values):
        made = part([0] * len(values))
        for row, value in enumerate(values):
            file = io.BytesIO()
            Pillow.fromarray(np.full((2, 3), value, np.uint16)).save(file, "png")
            made.columns["picture"][row]["bytes"] = file.getvalue()
        return made

    hub.sets["me/depths"] = {"train": deep([300, 2200, 700]), "test": deep([4095])}
    with pytest.warns(
        UserWarning, match="^hf:me/depths: 4 of 4 images have more than 8 bits: their values 300 to 4095 "
    ):
        found = get("me/depths")
    assert found.levels == (300, 4095)
    assert found.x[:, 0, 0, 0].tolist() == [round((v - 300) / 3795 * 255) for v in (300, 2200, 700, 4095)]
    assert [one.levels for one in split_images(found, 0.0)] == [(300, 4095)] * 2


# --- the package itself -------------------------------------------------------------------------------------


@pytest.fixture
def real():
    return pytest.importorskip("datasets")


def made(real, values, labels):
    features = real.Features({"img": real.Image(), "y": real.ClassLabel(names=["cat", "ant"])})
    pictures = [Pillow.fromarray(np.full((2, 3), value, np.uint8)) for value in values]
    return real.Dataset.from_dict({"img": pictures, "y": labels}, features=features)


def test_saved_to_disk(real, tmp_path):
    made(real, [1, 2, 3], [0, 1, 1]).save_to_disk(str(tmp_path / "one"))
    found = get(tmp_path / "one")
    assert found.x[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert found.x.shape == (3, 1, 2, 3)
    assert found.labels.tolist() == [0, 1, 1]
    assert found.classes == ("cat", "ant")

    both = real.DatasetDict(train=made(real, [1, 2], [0, 1]), test=made(real, [9], [1]))
    both.save_to_disk(str(tmp_path / "both"))
    for _ in range(2):
        found = get(tmp_path / "both", size=4)
        assert found.x[:, 0, 0, 0].tolist() == [1, 2, 9]
        assert found.x.shape == (3, 1, 4, 4)
        assert (found.labels.tolist(), found.test) == ([0, 1, 1], 1)


def test_labels_that_are_hidden(real, tmp_path):
    for hidden in (-1, None):
        both = real.DatasetDict(train=made(real, [1, 2], [0, 1]), test=made(real, [8, 9], [hidden, hidden]))
        both.save_to_disk(str(tmp_path / str(hidden)))
        found = get(tmp_path / str(hidden))
        assert (found.labels.tolist(), found.test, found.classes) == ([0, 1, -1, -1], 2, ("cat", "ant"))


def test_many_rows_in_threads(real, tmp_path):
    made(real, range(200), [k % 2 for k in range(200)]).save_to_disk(str(tmp_path / "many"))
    found = get(tmp_path / "many", workers=4)
    assert found.x[:, 0, 0, 0].tolist() == list(range(200))


def test_depths_of_the_package_itself(real, tmp_path):
    """Values of 12 bits in files of 16 and 32 bits, beside images of 8."""
    depths = [np.arange(k, 4000, 160, dtype=dtype).reshape(5, 5) for k, dtype in ((0, "<u2"), (95, "<i4"), (7, "<f4"))]
    features = real.Features({"mask": real.Image(), "image": real.Image()})
    pictures = [Pillow.fromarray(depth) for depth in depths]
    masks = [Pillow.new("L", (5, 5))] * 3
    files = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "tiff")
        files.append({"bytes": file.getvalue(), "path": None})
    real.Dataset.from_dict({"mask": masks, "image": files}, features=features).save_to_disk(str(tmp_path / "set"))
    with pytest.warns(UserWarning, match="3 of 3 images have more than 8 bits: their values 0 to 3935 "):
        found = get(tmp_path / "set")
    assert found.levels == (0, 3935)
    for x, depth in zip(found.x, depths, strict=True):
        assert x[0].tolist() == np.rint(depth / 3935 * 255).tolist()


def test_a_damaged_folder(real, tmp_path):
    made(real, [1, 2, 3], [0, 1, 1]).save_to_disk(str(tmp_path / "one"))
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(InputError, match="can't be loaded: "):
        get(tmp_path / "one")


@pytest.fixture
def two(real, tmp_path):
    """A set with two columns of images and two of labels, as CIFAR-100 has: tmp_path/two."""
    pictures = [[Pillow.fromarray(np.full((2, 3), 10 * k + value, np.uint8)) for value in (1, 2, 3)] for k in (0, 5)]
    features = real.Features({
        "img": real.Image(), "depth": real.Image(), "coarse": real.ClassLabel(names=["pet", "car"]),
        "fine": real.ClassLabel(names=["cat", "dog", "bus"]),
    })  # fmt: skip
    columns = {"img": pictures[0], "depth": pictures[1], "coarse": [0, 0, 1], "fine": [0, 1, 2]}
    real.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "two"))
    return f"hf:{tmp_path / 'two'}"


@pytest.mark.parametrize(
    ("chosen", "pixels", "classes"),
    [
        ("", [1, 2, 3], ("pet", "car")),
        (":image=depth", [51, 52, 53], ("pet", "car")),
        (":label=fine", [1, 2, 3], ("cat", "dog", "bus")),
        (":image=depth, label=fine", [51, 52, 53], ("cat", "dog", "bus")),
    ],
)
def test_columns_are_chosen_in_the_name(two, chosen, pixels, classes):
    found = load_images(two + chosen)
    assert found.x[:, 0, 0, 0].tolist() == pixels
    assert found.classes == classes


@pytest.mark.parametrize(
    ("chosen", "label", "says"),
    [
        (":image=coarse", "", "has no column of images 'coarse'; it has 'img', 'depth'."),
        (":label=kind", "", "has no column 'kind'; it has 'img', 'depth', 'coarse', 'fine'."),
        (":label=fine", "coarse", "names the labels' column, and label another, 'coarse'; name it once."),
        (":picture=img", "", "data must be hf:NAME, hf:NAME:CONFIG or hf:NAME:image=COLUMN,label=COLUMN; got "),
        (":image=", "", "data must be hf:NAME, hf:NAME:CONFIG or hf:NAME:image=COLUMN,label=COLUMN; got "),
    ],
)
def test_a_column_that_cannot_be_chosen_is_one_sentence(two, chosen, label, says):
    with pytest.raises(InputError) as caught:
        load_images(two + chosen, label=label)
    assert says in str(caught.value)
