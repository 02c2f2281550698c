import subprocess
import sys

from ebbtide.plots.colours import DIFFUSION, FLOW, INKS, apart


def test_further_methods_have_inks_in_turn():
    assert apart(["edm", "flow", "fast", "diffusion"]) == [INKS[0], FLOW, INKS[1], DIFFUSION]
    assert len(apart([str(k) for k in range(9)])) == 9


def test_training_beside_others_needs_no_matplotlib():
    code = "import sys, ebbtide.kinds.compare; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
