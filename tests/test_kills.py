"""Fits that are killed at random moments; `kill_fits.py` kills many more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "kill_fits.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is for POSIX")
def test_killed_fits_end_with_equal_bits():
    # In a process of its own, whose PyTorch has one thread
    done = subprocess.run(
        [
            *(sys.executable, str(SCRIPT), "--moments", "1", "--only"),
            *("AutoRecRegressoritem", "BayesianMFRegressor", "ConvMFRegressor"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, kills, checkpoints, fits, equal = done.stdout.split()
    assert int(kills) >= 9
    assert int(checkpoints) >= 9
    assert (fits, equal) == ("12", "12")
