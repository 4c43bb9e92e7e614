"""Trajectories from a user's own file: any variables on a grid or at points of the Earth, in NetCDF or Zarr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from eai.core.errors import require
from eai.core.learn.data import SPLITS, Samples, Split
from eai.core.learn.export import Variable, named
from eai.fields import open_fields
from eai.fields.periods import some_of, split_times
from eai.fields.times import minutes_since_first
from eai.fields.unchanged import FromFile
from eai.tasks.dynamics.anomalies import Anomalies, ClimatologyFit, seasonal_forcing
from eai.tasks.dynamics.data import Batch, Trajectories
from eai.tasks.dynamics.file_graph import layout_of
from eai.tasks.dynamics.history import with_history
from eai.tasks.dynamics.states import States, starts_of


class FieldTrajectories(FromFile, Trajectories):
    """All trajectories of so many states in a file, divided by time into training, validation and test data.

    ``u`` are anomalies from the climatology of the training period in units of their standard deviation, see
    :class:`eai.tasks.dynamics.anomalies.Anomalies`; ``static`` is the sine of latitude, the sine and the cosine of
    longitude; ``forcing`` the sine and the cosine of the season at the time of each state, if ``harmonics`` is 1 or
    more; ``time`` counts steps from the last training state. Trajectories begin at every state from which ``length``
    states follow each other without a gap in time and without a missing value: those of a split overlap. Splits share
    no state.

    Args:
        path: a NetCDF file, a Zarr folder, a folder of NetCDF files, a pattern of names, or
            ``package:<package>/<file inside>``.
        variables: names of the variables, which become the channels.
        val_share, test_share: of the times, for validation and test; the test period is the last one.
        val_from, test_from: dates at which these periods begin, instead of shares.
        gap: states left out between the periods.
        nt: states of a training trajectory, at least 2.
        nt_test: states of a validation or test trajectory, at least 2: the horizon of the scores.
        history: earlier states that are further channels of every state, see :mod:`eai.tasks.dynamics.history`; 0 or
            more. Trajectories begin so much later.
        harmonics: of the year in the climatology, 0 or more; 0 where there is one state a year, or no season.
        missing_share: of the states in which a place may lack a value and still be a node, see
            :func:`eai.tasks.dynamics.file_graph.layout_of`. States that lack a node's value end a trajectory.
        batch_size, seed: see :class:`eai.core.learn.data.DataModule`.

    Raises:
        ValueError: the file is not such data, or a period is too short for one trajectory.
    """

    def __init__(
        self,
        path: str,
        variables: Sequence[str],
        val_share: float = 0.15,
        test_share: float = 0.15,
        val_from: str | None = None,
        test_from: str | None = None,
        gap: int = 0,
        nt: int = 5,
        nt_test: int = 11,
        history: int = 0,
        harmonics: int = 2,
        missing_share: float = 0.0,
        batch_size: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, fresh=False)
        require(nt >= 2, "nt", "at least 2 states", nt)
        require(nt_test >= 2, "nt_test", "at least 2 states", nt_test)
        require(history >= 0, "history", "0 or more", history)
        require(harmonics >= 0, "harmonics", "0 or more", harmonics)
        self.horizon, self.history, self.harmonics = nt - 1, history, harmonics
        self.fields = open_fields(path, list(variables))
        self.periods = split_times(self.fields, val_share, test_share, val_from, test_from, gap)
        months = len(np.unique(self.fields.months[self.periods.train]))
        most = (months - 1) // 2
        require(harmonics <= most, "harmonics", f"at most {most} (months with training states: {months})", harmonics)
        self.lengths: dict[Split, int] = {"train": nt, "val": nt_test, "test": nt_test}
        self.layout = layout_of(self.fields, missing_share)
        self.positions = self.layout.positions
        every = len(self.layout.nodes) == self.layout.latitude.numel()
        self.shape = self.layout.shape if every else (len(self.layout.nodes),)
        self.states = States(self.fields, self.layout.nodes)
        self.anomalies = self._prepared()

    def _prepared(self) -> Anomalies:
        """Read the file once: what follows without a gap, and the statistics of the training period."""
        fit, self.starts = ClimatologyFit(self.harmonics), {}
        self.states.keep(np.concatenate(self.periods))
        for split, steps in zip(SPLITS, self.periods, strict=True):
            complete = self.states.complete(steps, fit if split == "train" else None)
            length = self.history + self.lengths[split]
            self.starts[split] = self.history + starts_of(self.fields.times, steps, complete, length)
            name = "nt" if split == "train" else "nt_test"
            most = f"the {split} period has {len(steps)} states, {complete.sum()} without missing values"
            told = f"fewer states: {most}, and none that begin {length} in a row"
            require(len(self.starts[split]) > 0, name, told, self.lengths[split])
        return Anomalies(*fit.result(), self.layout, self.fields.variables, self.fields.units)

    anomalies: Anomalies
    starts: dict[Split, np.ndarray]

    def make(self, split: Split) -> Samples[Batch]:
        return _Windows(self, split)

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        return self.windows(self.starts[split], self.lengths[split])

    def windows(self, starts: np.ndarray, length: int) -> Batch:
        """Trajectories of ``length`` states.

        Args:
            starts: numbers of the times of their first states.
            length: at least 1.
        """
        steps = starts[:, None] + np.arange(-self.history, length)
        read, number = np.unique(steps, return_inverse=True)
        forcing = seasonal_forcing(self.states.season[torch.from_numpy(read)], self.harmonics)
        u = self.anomalies.standardised(self.states(read), forcing).cpu()
        place = torch.from_numpy(number).view(steps.shape)
        time = torch.from_numpy(steps - self.periods.train[-1])[:, self.history :]
        static, forcing = self.layout.static.float().expand(len(starts), -1, -1), forcing[place[:, self.history :]]
        return Batch(with_history(u[place], self.history), static, forcing.float(), time.float())

    def fitting(self) -> Batch:
        """Pairs of successive training states; of large files so many, evenly taken, that they fit into 256 MiB."""
        starts = np.unique(self.starts["train"][:, None] + np.arange(self.lengths["train"] - 1))
        return self.windows(some_of(starts, len(self.layout.nodes) * len(self.fields.variables)), 2)

    @property
    def space(self) -> tuple[str, ...]:
        if self.layout.regular:
            return ("latitude", "longitude")
        return ("y", "x") if len(self.layout.shape) == 2 else ("node",)

    def coordinates(self) -> Mapping[str, Variable]:
        start, length = self.starts["test"], self.lengths["test"]
        minutes, units, calendar = minutes_since_first(self.fields.times)
        now = torch.from_numpy(minutes[start])
        later = torch.from_numpy(minutes[start[:, None] + np.arange(1, length)]).long()
        how = {"calendar": calendar}
        found = {
            "init_time": named(
                ("init_time",), now, "initial time", units, standard_name="forecast_reference_time", **how
            ),
            "valid_time": named(("init_time", "lead_time"), later, "valid time", units, standard_name="time", **how),
        }
        places = {
            "latitude": (self.layout.latitude, "degrees_north"),
            "longitude": (self.layout.longitude, "degrees_east"),
        }
        for axis, (name, (degrees, units)) in enumerate(places.items()):
            one = degrees.select(1 - axis, 0) if self.layout.regular else degrees
            dims = (name,) if self.layout.regular else self.space
            found[name] = named(dims, one, name, units, standard_name=name)
        return found


class _Windows(Samples[Batch]):
    """The trajectories of one split, read from the file when they are asked for."""

    def __init__(self, module: FieldTrajectories, split: Split) -> None:
        self._data = module
        self._starts, self._length = module.starts[split], module.lengths[split]

    def set_epoch(self, epoch: int) -> None:
        """Every epoch has the same trajectories."""

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, indices: Tensor) -> Batch:
        return self._data.windows(self._starts[indices.cpu().numpy()], self._length)
