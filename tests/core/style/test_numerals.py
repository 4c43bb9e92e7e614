"""How numbers are printed."""

from __future__ import annotations

import pytest

from eai.core.style.numerals import spell_number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0009, "1.0009"),
        (1.0004, "1.0004"),
        (1.00004, "1.00004"),
        (0.99953, "0.9995"),
        (1.005, "1.005"),
        (1.0, "1"),
        (1.0129, "1.013"),
        (1.0996, "1.1"),
        (1.1004, "1.1"),
        (0.9204, "0.92"),
        (21.348, "21.3"),
        (0.016949, "0.0169"),
        (12345.6, "12300"),
        (-1570.2, "-1570"),
        (2.34e-6, "2.34e-06"),
        (4.2e7, "4.2e+07"),
        (0.0, "0"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_three_digits_but_more_next_to_one(value: float, text: str) -> None:
    assert spell_number(value) == text
