"""Scores and methods as they are read."""

from __future__ import annotations

import pytest

from eai.core.style.wording import in_words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test/nrmse/lead_14", "nRMSE at lead 14"),
        ("test/rmse_analysis", "RMSE analysis"),
        ("test/psnr/level_0.4", "PSNR at level 0.4"),
        ("semi_lagrangian_cubic", "semi-Lagrangian, cubic"),
        ("semi_lagrangian_12", "semi-Lagrangian, 12 points"),
        ("least_squares_7", "fitted stencil, 7 points"),
        ("pcg_6_background", "conjugate gradients with B, 6 steps"),
        ("enkf_sqrt_24", "square-root filter, 24 members"),
        ("blue", "exact minimum"),
        ("test/j_ratio", "J/J*"),
        ("mean_fill", "mean fill"),
        ("test/rmse_analysis/ratio_to_best", "RMSE analysis, ratio to best"),
    ],
)
def test_scores_are_read_in_words(name: str, words: str) -> None:
    assert in_words(name) == words
