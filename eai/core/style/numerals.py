"""How numbers are printed."""

from __future__ import annotations

import math


def spell_number(value: float) -> str:
    """Three significant digits; a number within 10 % of one, often a ratio, keeps those by which it differs.

    Powers of ten stand from a million on, and below a ten-thousandth.

    Args:
        value: to print.
    """
    apart = abs(value - 1)
    if 1e-6 <= apart < 0.1:
        decimals = 3 if apart >= 0.01 else max(4, -math.floor(math.log10(apart)))
        return f"{value:.{decimals}f}".rstrip("0")
    short = f"{value:.3g}"
    return f"{float(short):.0f}" if 1000 <= abs(value) < 1e6 else short
