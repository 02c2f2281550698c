"""LeRobot beside the tests: where it is installed it is imported, in spite of what it can't be installed beside."""

import importlib
import sys

import pytest
import torch

# LeRobot 0.4.4 excludes the versions that ebbtide is tested with, so it is installed without what it requires; these
# are what of it the policies, processors, evaluation and training import, besides what the extra `test` has.
PACKAGES = (
    "lerobot==0.4.4", "draccus==0.10.0", "mergedeep", "toml", "typing-inspect", "mypy-extensions",
    "pyyaml-include==1.4.1", "termcolor", "jsonlines", "deepdiff", "orderly-set", "cachebox", "pyserial", "einops",
    "torchvision==0.28.0",
)  # fmt: skip


def import_lerobot(what):
    """Import LeRobot; where it isn't installed, skip and name what isn't tested."""
    if importlib.util.find_spec("lerobot") is None:
        pytest.skip(f"LeRobot isn't installed, so {what} isn't tested: see test_with_lerobot_itself")
    with pytest.MonkeyPatch.context() as patch:  # transformers, an extra of LeRobot's whose version 5 it can't import
        patch.setitem(sys.modules, "transformers", None)
        import lerobot.utils.import_utils  # noqa: F401
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # built for CUDA, beside a torch without: none of its operators is used
        global _OPERATORS
        _OPERATORS = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_OPERATORS = None
