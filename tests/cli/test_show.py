"""`show`, `list` and `cite`."""

import json
from typing import get_args

import pytest
from PIL import Image

from ebbtide.cli.listing import Kind, tables
from ebbtide.core.paths import PATHS
from ebbtide.data import DATASETS
from ebbtide.recipes import RECIPES
from ebbtide.samplers import SAMPLERS

PICTURES = {"point_1d", "point_2d", "continuum", "moments", "schedules", "ddpm_tables", "dissolving"}


@pytest.mark.parametrize(
    "path", ["linear", *(pytest.param(name, marks=pytest.mark.slow) for name in PATHS if name != "linear")]
)
def test_show_path(ebbtide, tmp_path, path):
    code, out, err = ebbtide("show", "path", "--path", path, "--out", "pictures", "--start", "2", "--times", "1,0.3,0")
    assert (code, err) == (0, "")
    assert {file.stem for file in (tmp_path / "pictures").glob("*.png")} == PICTURES
    assert out.splitlines()[-1] == "pictures/continuum.gif"
    assert len(out.splitlines()) == len(PICTURES) + 1


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--times", "0,soon", "--times must be times such as 0,0.1,0.5,1; got '0,soon'."),
        ("--times", "0,1.5", "--times: each must be at least 0 and at most 1; got 1.5."),
        ("--start", "nan", "--start must be at least -1000000 and at most 1000000; got nan."),
    ],
)
def test_a_start_or_time_that_is_none_is_refused(ebbtide, tmp_path, option, value, says):
    assert ebbtide("show", "path", option, value) == (2, "", f"ebbtide: {says}\n")
    assert not list(tmp_path.iterdir())


def test_a_path_is_shown_on_a_table_with_texts_and_missing_cells(ebbtide, tmp_path):
    """Also where no row is whole."""
    rows = [f"{k},,red," if k % 2 else f",{k},blue," for k in range(40)]
    (tmp_path / "gaps.csv").write_text("\n".join(["a,b,c,d", *rows]) + "\n")
    code, out, err = ebbtide("show", "path", "--data", "gaps.csv")
    assert (code, "runs/show-path/dissolving.png" in out, "Traceback" in err) == (0, True, False)


@pytest.mark.parametrize("name", DATASETS)
def test_show_data(ebbtide, tmp_path, name):
    assert ebbtide("show", "data", name, "--n", "300")[0] == 0
    assert (tmp_path / "runs" / "show-data" / f"{name}.png").stat().st_size > 2500


def test_show_a_file(ebbtide, tmp_path, table):
    assert ebbtide("show", "data", table, "--label", "kind", "--out", "x") == (0, "x/plants.png\n", "")
    assert (tmp_path / "x" / "plants.png").exists()


def test_figures_are_drawn_larger_or_as_svg(ebbtide, tmp_path, table):
    code, out, err = ebbtide("show", "data", table, "--label", "kind", "--svg")
    assert (code, out, err) == (0, "runs/show-data/plants.svg\n", "")
    assert (tmp_path / out.strip()).read_bytes().startswith(b"<?xml")
    widths = []
    for dpi in ("50", "100"):
        assert ebbtide("show", "data", table, "--dpi", dpi, "--out", f"{dpi}.png")[0] == 0
        with Image.open(tmp_path / f"{dpi}.png") as picture:
            widths.append(picture.width)
    assert widths[1] == pytest.approx(2 * widths[0], abs=1)
    says = "ebbtide: --dpi is for figures of pixels, and --svg has none; give one of them.\n"
    assert ebbtide("show", "data", table, "--dpi", "50", "--svg") == (2, "", says)
    says = "ebbtide: --dpi must be at least 20 and at most 1200; got 5.\n"
    assert ebbtide("show", "data", table, "--dpi", "5") == (2, "", says)
    assert ebbtide("show", "data", table, "--dpi", "0") == (2, "", says.replace("got 5", "got 0"))


def test_an_option_that_this_data_has_no_use_for_is_refused(ebbtide, tmp_path, table):
    for data, option in (("rings", "--size"), ("digits", "--n"), (table, "--n"), (table, "--seed"), (table, "--size")):
        says = "ebbtide: --n is for named point sets, --size for images, and --seed for both; got"
        code, out, err = ebbtide("show", "data", data, option, "9")
        assert (code, out, err) == (2, "", f"{says} {option} for {data}.\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["all", *tables()])
def test_list(ebbtide, kind, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = ebbtide("list", kind)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    for title, rows in tables().items():
        assert (f"{title}:" in out.splitlines()) == (kind in ("all", title))
        assert kind not in ("all", title) or all(f"\n  {name} " in out for name in rows)


def test_list_says_something_of_every_row():
    for title, rows in tables().items():
        for name, texts in rows.items():
            assert all(texts), f"{title}: {name}"
    assert tables()["paths"]["vp"][1] == "options: vp:beta_min=0.1,beta_max=20.0"
    assert tables()["networks"]["mlp"][1] == "options: mlp:width=64,depth=6,time_features=16,spans=False"


def test_list_help_names_every_table(ebbtide):
    words = ebbtide("list", "--help")[1].replace(",", " ").split()
    assert set(tables()) <= set(words)


@pytest.mark.parametrize("name", RECIPES)
def test_cite(ebbtide, name):
    code, out, err = ebbtide("cite", name)
    assert (code, err) == (0, "")
    assert out.startswith("@")
    assert out.count("{") == out.count("}")


def test_the_tables_are_json_too(ebbtide):
    """Rows and options as they are printed; the options' defaults as numbers, texts and booleans."""
    code, out, err = ebbtide("list", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["paths"]["ddpm"]["options"] == {"betas": "linear", "steps": 1000, "beta_min": 0.0001, "beta_max": 0.02}
    assert found["networks"]["mlp"]["options"]["spans"] is False
    assert set(found["samplers"]) == set(SAMPLERS)
    assert set(found) == set(get_args(Kind)) - {"all"}
    assert all(row["about"] for table in found.values() for row in table.values())
    assert json.loads(ebbtide("list", "paths", "--json")[1]) == {"paths": found["paths"]}
