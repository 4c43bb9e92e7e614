"""Scores and reference methods as they are read: in figures, and in reports."""

from __future__ import annotations

import re

_METHODS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"model|network", "network"),
        (r"semi_lagrangian_(\d+)", r"semi-Lagrangian, \1 points"),
        (r"semi_lagrangian_([a-z]+)", r"semi-Lagrangian, \1"),
        (r"least_squares_(\d+)", r"fitted stencil, \1 points"),
        (r"pcg_(\d+)_background", r"conjugate gradients with B, \1 steps"),
        (r"pcg_(\d+)_uniform", r"conjugate gradients with (B⁻¹ + ρ)⁻¹, \1 steps"),
        (r"pcg_(\d+)_tuned", r"conjugate gradients with a tuned scale, \1 steps"),
        (r"enkf_sqrt_(\d+)", r"square-root filter, \1 members"),
        (r"enkf_(\d+)", r"EnKF, \1 members"),
        (r"letkf_(\d+)", r"LETKF, \1 members"),
        (r"blue", "exact minimum"),
        (r"blue_truth", "exact minimum with the true statistics"),
        (r"blue_untuned", "exact minimum before tuning"),
        (r"blue_without_bias", "exact minimum without bias correction"),
        (r"var3d", "3D-Var"),
        (r"weno5", "WENO5"),
        (r"lax_wendroff", "Lax–Wendroff"),
        (r"upwind", "upwind scheme"),
        (r"kalman", "Kalman filter"),
        (r"kalman_steady", "steady Kalman filter"),
        (r"wiener", "Wiener filter"),
        (r"non_local_means", "non-local means"),
    )
)
_SCORES = (
    (re.compile(r"\bj ratio\b"), "J/J*"),
    (re.compile(r"\bnrmse\b"), "nRMSE"),
    (re.compile(r"\b(rmse|psnr|mse|acc|ssim|crps|dfs)\b"), lambda found: found[0].upper()),
)


def in_words(name: str) -> str:
    """A method, a score or a figure as it is read.

    ``test/nrmse/lead_14`` is nRMSE at lead 14, ``semi_lagrangian_12`` is semi-Lagrangian, 12 points. A name that is not
    known loses its underscores.

    Args:
        name: as in ``metrics.json`` and ``baselines.json``, or of a figure's file.
    """
    for pattern, words in _METHODS:
        if found := pattern.fullmatch(name):
            return found.expand(words)
    first, *parts = name.removeprefix("test/").removeprefix("val/").split("/")
    text = first.replace("_", " ")
    for pattern, put in _SCORES:
        text = pattern.sub(put, text)
    for part in parts:
        kind, _, at = part.rpartition("_")
        if kind and at.replace(".", "").isdigit():
            text += f" at {kind.replace('_', ' ')} {re.sub(r'^0+(?=[0-9])', '', at)}"
        else:
            text += f", {part.replace('_', ' ')}"
    return text
