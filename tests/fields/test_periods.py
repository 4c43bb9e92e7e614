"""Calendars, seasons, and periods that share no time step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eai.fields import open_fields
from eai.fields.periods import FITTED, runs_without_gap, some_of, split_times
from tests.fields.files import dataset, written

DAYS = np.arange(np.datetime64("2001-01-01"), np.datetime64("2001-04-11"))  # 100 of them


@pytest.mark.parametrize(
    ("calendar", "first", "month", "season"),
    [
        # 45 days after 30 January: of 365 days in 2001, 366 in 2004, 360 in the models' year.
        ("standard", "2001-01-30", 3, (29 + 45) / 365),
        ("standard", "2004-01-30", 3, (29 + 45) / 366),
        ("noleap", "2004-01-30", 3, (29 + 45) / 365),
        ("360_day", "2004-01-30", 3, (29 + 45) / 360),
    ],
)
def test_months_and_season_follow_the_calendar(
    calendar: str, first: str, month: int, season: float, tmp_path: Path
) -> None:
    content = dataset(range(0, 90, 45), units=f"days since {first}", calendar=calendar)
    fields = open_fields(written(content, tmp_path / "a.nc"), ["sst"])
    assert fields.months.tolist() == [1, month]
    np.testing.assert_allclose(fields.season, [29 / (29 + 45) * season, season], rtol=1e-12)


def test_shares_divide_time_into_periods_in_order_that_share_no_step() -> None:
    train, val, test = split_times(DAYS, 0.15, 0.2, None, None, gap=3)
    assert np.concatenate([train, val, test]).tolist() == [*range(62), *range(65, 77), *range(80, 100)]
    assert (len(train), len(val), len(test)) == (62, 12, 20)


@pytest.mark.parametrize("calendar", ["standard", "360_day"])
def test_dates_begin_periods_and_the_gap_lies_before_them(calendar: str, tmp_path: Path) -> None:
    content = dataset(range(100), units="days since 2001-01-01", calendar=calendar)
    fields = open_fields(written(content, tmp_path / "a.nc"), ["sst"])
    train, val, test = split_times(fields, 0.5, 0.9, "2001-02", "2001-03-30", gap=2)
    assert [str(fields.times[period[0]])[:10] for period in (val, test)] == ["2001-02-01", "2001-03-30"]
    assert (train[-1] + 3, val[-1] + 3, test[-1]) == (val[0], test[0], 99)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 0.2, None, None, 0), "val_share: expected 0 < share < 1"),
        ((0.5, 0.5, None, None, 0), "val_share: expected less than 1 - test_share = 0.5"),
        ((0.1, 0.1, "2001-02-01", None, 0), "test_from: expected a date where val_from is one"),
        ((0.1, 0.1, "2001-03-01", "2001-02-01", 0), "test_from: expected a date after val_from"),
        ((0.1, 0.1, "Monday", "2001-02-01", 0), "val_from: expected a date such as 2009-01-31, got 'Monday'"),
        ((0.1, 0.1, "2001-02-01", "2001-02-30", 0), "test_from: expected a date such as"),
        ((0.1, 0.1, "1999-02-01", "2001-02-01", 0), "val_from: expected steps for .*, of which the train period gets"),
        ((0.1, 0.1, "2001-02-01", "2009-02-01", 0), "test_from: expected steps for .*, of which the test period gets"),
        (
            (0.1, 0.1, None, None, 10),
            "path: expected steps .* 100 steps from 2001-01-01 to 2001-04-10, of which the val",
        ),
        ((0.1, 0.1, None, None, -1), "gap: expected 0 or more"),
    ],
)
def test_impossible_periods_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_times(DAYS, *arguments)


def test_no_more_steps_are_taken_than_fit_and_they_are_evenly_apart() -> None:
    values = FITTED // (8 * 10)  # of a step, ten of which fit
    assert some_of(np.arange(3, 13), values).tolist() == [*range(3, 13)]
    assert some_of(np.arange(3, 14), values).tolist() == [3, 5, 7, 9, 11, 13]
    assert len(some_of(np.arange(95), values)) == 10
    assert len(some_of(np.arange(95), FITTED)) == 2


def test_steps_are_divided_where_one_is_left_out_or_time_jumps() -> None:
    months = np.arange(np.datetime64("2001-01"), np.datetime64("2003-01")).astype("M8[D]")
    kept = np.delete(months, [5, 11])  # June 2001 and December 2001 are not there
    runs = runs_without_gap(kept, np.array([0, 1, 2, 3, 4, 5, 6, 9, 10, 11]))
    assert [run.tolist() for run in runs] == [[0, 1, 2, 3, 4], [5, 6], [9], [10, 11]]
    assert [run.tolist() for run in runs_without_gap(months, np.arange(24))] == [list(range(24))]
    years = np.arange(np.datetime64("2001"), np.datetime64("2010")).astype("M8[D]")  # leap years are longer
    assert [run.tolist() for run in runs_without_gap(years, np.arange(9))] == [list(range(9))]
    assert runs_without_gap(months, np.arange(0)) == []
    assert [run.tolist() for run in runs_without_gap(months[:1], np.arange(1))] == [[0]]


def test_jumps_are_found_in_calendars_of_models_too(tmp_path: Path) -> None:
    content = dataset(range(9), units="days since 2001-02-27", calendar="360_day").isel(time=[0, 1, 2, 3, 6, 7, 8])
    fields = open_fields(written(content, tmp_path / "a.nc"), ["sst"])
    assert [run.tolist() for run in runs_without_gap(fields.times, np.arange(7))] == [[0, 1, 2, 3], [4, 5, 6]]
