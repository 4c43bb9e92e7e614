"""One run as its files tell it, and what its reference methods are to its network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from eai.core.directory import COSMETIC
from eai.core.files import flat_keys

# What a reference method is to a network, beside the one that every table marks as the one to beat.
BASELINE, RIVAL, STRONGEST, ORACLE, OPTIMUM = (
    "baseline", "baseline to beat", "strongest baseline", "oracle", "optimum",
)  # fmt: skip
_EQUAL_COST = 1.1  # times are measured to about a tenth


@dataclass(frozen=True)
class Record:
    """One run: the files of its directory, each empty where absent or unreadable; ``typed`` are the overrides."""

    path: Path
    status: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    typed: tuple[str, ...] | None = None
    swept: tuple[str, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, Any] = field(default_factory=dict)
    measurements: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        return self.status["state"]

    @property
    def completed(self) -> bool:
        return self.state == "COMPLETED"

    @property
    def reason(self) -> str | None:
        """Why the run failed, as one line."""
        reason = self.status.get("reason")
        return " ".join(str(reason).split()) if reason and self.state in ("FAILED", "UNREADABLE") else None

    @property
    def task(self) -> str | None:
        return _text(self.config.get("task")) or self.overrides.get("task")

    @property
    def score(self) -> str | None:
        """The monitored validation score, ``val/…``."""
        return _text(self.under("monitored").get("score")) or _text(self.under("monitor").get("score"))

    @property
    def mode(self) -> str:
        """Whether the monitored score is best at its ``min`` or its ``max``."""
        return "max" if "max" in (self.under("monitored").get("mode"), self.under("monitor").get("mode")) else "min"

    @cached_property
    def headline(self) -> dict[str, str | None]:
        """``score`` (test/…), ``baseline`` and ``optimum``, each None where unknown."""
        return {name: _text(self.under("headline").get(name)) for name in ("score", "baseline", "optimum")}

    @property
    def headline_mode(self) -> str:
        """Whether the headline score is best at its ``min`` or ``max``.

        Runs of before the configuration said so: as the monitored score, if it is the same; else by the score's name.
        """
        given, score = self.under("headline").get("mode"), str(self.headline["score"]).partition("/")[2]
        if given in ("min", "max"):
            return str(given)
        if score == str(self.score).partition("/")[2]:
            return self.mode
        return "max" if score.startswith(("psnr", "ssim", "skill", "acc", "useful_lead_time")) else "min"

    @property
    def monitored(self) -> float | None:
        return number(self.under("monitored").get("value")) if self.completed else None

    @property
    def test_score(self) -> float | None:
        """The model's headline score on the test data, also of a run that is being resumed."""
        return number(self.metrics.get(str(self.headline["score"])))

    def baseline(self, name: str | None) -> float | None:
        """The headline score of a reference method on the test data."""
        return number(_entry(self.baselines, str(name), str(self.headline["score"])))

    def error(self, method: str) -> float | None:
        """The standard error of the headline score of ``model`` or a reference, by the test samples' scatter."""
        return number(_entry(self.errors, method, str(self.headline["score"])))

    def cost(self, method: str) -> float | None:
        """Seconds that ``model`` or a reference method takes for one sample, as measured beside the others."""
        return number(_entry(self.measurements, method, "seconds_per_sample"))

    def roles(self, methods: Sequence[tuple[str, float, float | None]], budget: float | None) -> list[str]:
        """What each reference method is to a network.

        The optimum and oracles, who know what the network is not told, are as the configuration names them. Of the
        others the best one is the strongest baseline; the best of those that cost no more than the network is the
        baseline to beat. Where no cost is known, that is the one that the configuration names.

        Args:
            methods: name, headline score and seconds per sample of each.
            budget: seconds per sample of the network.
        """
        oracles = self.under("headline").get("oracles")
        fixed = dict.fromkeys(oracles if isinstance(oracles, list) else [], ORACLE) | {
            self.headline["optimum"]: OPTIMUM
        }
        roles = [fixed.get(name, BASELINE) for name, _, _ in methods]
        sign = -1 if self.headline_mode == "max" else 1
        ranked = sorted((i for i, role in enumerate(roles) if role == BASELINE), key=lambda i: sign * methods[i][1])
        costs = [cost for _, _, cost in methods]
        if budget is None or not any(costs):
            to_beat = [i for i in ranked if methods[i][0] == self.headline["baseline"]]
        else:
            to_beat = [i for i in ranked if (cost := costs[i]) is not None and cost <= _EQUAL_COST * budget]
        for role, places in ((STRONGEST, ranked[:1]), (RIVAL, to_beat[:1])):
            for i in places:
                roles[i] = role
        return roles

    @cached_property
    def references(self) -> list[tuple[str, float, float | None]]:
        """Name, headline score and seconds per sample of each reference method."""
        scores = {name: self.baseline(name) for name in self.baselines}
        return [(name, score, self.cost(name)) for name, score in scores.items() if score is not None]

    @cached_property
    def rival(self) -> tuple[str, float] | None:
        """Name and headline score of the baseline to beat."""
        pairs = zip(self.roles(self.references, self.cost("model")), self.references, strict=True)
        return next(((name, score) for role, (name, score, _) in pairs if role == RIVAL), None)

    def under(self, name: str) -> dict[str, Any]:
        """A node of ``status.json`` or else of the configuration; empty unless it is a mapping."""
        node = self.status.get(name, self.config.get(name))
        return dict(node) if isinstance(node, Mapping) else {}

    @cached_property
    def leaves(self) -> dict[str, Any]:
        """The configuration as dotted keys, but for ``seed`` and what is cosmetic."""
        kept = {key: node for key, node in self.config.items() if key != "seed" and key not in COSMETIC}
        return flat_keys(kept)

    @property
    def test_data(self) -> dict[str, Any]:
        """The leaves that say which samples the run was tested on, but for the seed."""
        return {key: value for key, value in self.leaves.items() if key.startswith(("data.", "shared."))}

    @property
    def overrides(self) -> dict[str, str]:
        """Value or option by key or group, of what was typed."""
        pairs = [item.partition("=") for item in self.typed or ()]
        return {key.lstrip("+"): value for key, _, value in pairs if not key.startswith("~")}

    def parameter(self, key: str) -> Any:
        """The value of a dotted key; of a class its name; of a group as ``data/assimilation`` the option chosen."""
        node: Any = self.config
        for name in key.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        if isinstance(node, str) and key.endswith("_target_"):
            return node.rpartition(".")[2]
        if node is not None and not isinstance(node, Mapping):
            return node
        chosen = self.overrides.get(key) or self.overrides.get(f"{key}/{self.task}")
        if chosen:
            return chosen.rpartition("/")[2]
        if isinstance(node, Mapping):
            return str(node.get("_target_", "")).rpartition(".")[2] or None
        return "default" if "/" in key else None


def _entry(content: Mapping[str, Any], method: str, key: str) -> Any:
    of_method = content.get(method)
    return of_method.get(key) if isinstance(of_method, Mapping) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def number(value: Any) -> float | None:
    """A finite number, or None."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return value if real and math.isfinite(value) else None
