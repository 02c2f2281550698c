"""The command `export`: for ebbtide itself, for diffusers and for ONNX."""

import pytest

from ebbtide.cli import main
from ebbtide.codecs import Pixels, Standardise
from ebbtide.recipes import RECIPES
from ebbtide.training.build import build_denoiser
from ebbtide.training.trained import Trained

pytestmark = pytest.mark.unchecked


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folders of two runs that have learned nothing."""
    place, small = tmp_path_factory.mktemp("runs"), "unet:width=8,multipliers=1,attention=0,blocks=1,groups=4"
    for name, shape, codec, network in (
        ("flow", (2,), Standardise((1.0, 2.0), (0.5, 3.0)), "mlp:width=8"),
        ("ddpm-images", (1, 8, 8), Pixels(), small),
    ):
        recipe = RECIPES[name](network=network)
        trained = Trained(build_denoiser(recipe, shape, 0).eval(), recipe, shape, codec)
        trained.save_pretrained(place / name)
    return place


def test_for_onnx(exported, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    assert main(["export", str(exported / "flow"), "--onnx", "--steps", "2", "--out", str(tmp_path / "m.onnx")]) == 0
    assert "noise → samples" in capsys.readouterr().out
    assert (tmp_path / "m.onnx").stat().st_size > 1000


def test_for_diffusers(exported, tmp_path, capsys):
    words = ["export", str(exported / "ddpm-images"), "--for", "diffusers", "--out", str(tmp_path / "model")]
    assert main([*words, "--license", "cc-by-4.0"]) == 0
    assert "DDPMPipeline with DDPMScheduler, 1000 steps" in capsys.readouterr().out
    assert "license: cc-by-4.0" in (tmp_path / "model/README.md").read_text()
    assert main(words) == 2
    assert main([*words, "--overwrite", "--sampler", "dpmpp_2m"]) == 0
    said = capsys.readouterr()
    assert "DPMSolverMultistepScheduler" in said.out
    assert "bound 1, which is left out" in said.err


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--for", "tensorflow"], "--for must be one of"),
        (["--steps", "3"], "--steps is for"),
        (["--onnx", "--license", "mit"], "has none"),
        (["--for", "diffusers"], "diffusers runs U-Nets"),
        (["--onnx", "--push", "me/mine"], "--push uploads"),
        (["--onnx", "--steps", "-1"], "--steps must be"),
    ],
)
def test_bad_input_is_one_sentence(wrong, named, exported, tmp_path, capsys):
    assert main(["export", str(exported / "flow"), "--out", str(tmp_path / "out"), *wrong]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
