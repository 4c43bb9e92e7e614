"""How much each parameter of a search matters, by Optuna."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eai.core.compare.keys import short_names
from eai.core.trials import journal_storage

log = logging.getLogger("eai")
_FEWEST = 5  # complete trials, for importances to mean anything


def importances(sweep: Path) -> dict[str, dict[str, float]]:
    """For each objective of the sweep's studies: the share of each parameter, the largest first; they add up to 1.

    PED-ANOVA (Watanabe et al. 2023): by how much a parameter's distribution among the best tenth of the complete trials
    differs from that among all. Empty where Optuna is not installed, or a study has fewer than five complete trials.

    Args:
        sweep: the directory of a sweep.
    """
    journal = sweep / "study.journal"
    if not journal.is_file():
        return {}
    try:
        import optuna
    except ImportError:
        return {}
    shares: dict[str, dict[str, float]] = {}
    storage = journal_storage(journal)
    for name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len(complete) < _FEWEST or not any(len({t.params[key] for t in complete}) > 1 for key in complete[0].params):
            continue
        objectives = study.user_attrs.get("objectives") or [
            f"objective {i + 1}" for i, _ in enumerate(study.directions)
        ]
        for place, (objective, direction) in enumerate(zip(objectives, study.directions, strict=True)):
            sign = -1.0 if direction == optuna.study.StudyDirection.MAXIMIZE else 1.0
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that less counts as better, and that it is experimental
                shares[objective] = optuna.importance.get_param_importances(
                    study,
                    evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
                    target=_target(place, sign),
                )
    return shares


def _target(place: int, sign: float) -> Any:
    """The objective, such that less is better, as the evaluator takes it."""
    return lambda trial: sign * trial.values[place]


def importance_lines(folders: Sequence[str | Path]) -> list[str]:
    """A line for each objective of each sweep among the folders, as ``importance for score: lr 0.71, width 0.29``.

    Args:
        folders: of sweeps; others are passed over.
    """
    lines = []
    for folder in folders:
        try:
            found = importances(Path(folder))
        except Exception as error:  # a leaderboard matters more
            log.warning("no importances of %s: %s: %s", folder, type(error).__name__, error)
            continue
        for objective, shares in found.items():
            names = short_names(dict.fromkeys(shares), [], set())
            told = ", ".join(f"{names[key]} {share:.2f}" for key, share in shares.items())
            lines.append(f"importance for {objective}  {told}")
    return lines
