"""What a run has shown, in sentences that a forecaster understands."""

from __future__ import annotations

from eai.core.compare.record import BASELINE, OPTIMUM, ORACLE, RIVAL, STRONGEST, Record
from eai.core.compare.text import spell
from eai.core.style.wording import in_words

CLOSE = 1.005  # ratios that differ by less are said to be the same


def headline_sentences(record: Record) -> list[str]:
    """How good the network is beside its references; empty where the run has no test score.

    Args:
        record: of the run.
    """
    own, score = record.test_score, in_words(str(record.headline["score"]))
    if own is None:
        return []
    roles = record.roles(record.references, record.cost("model"))
    by_role = {role: one for role, one in zip(roles, record.references, strict=True) if role not in (BASELINE, ORACLE)}
    told = [f"On the test data the network's {score} is {spell(own)}."]
    if rival := by_role.get(RIVAL):
        name, value, _ = rival
        told.append(
            f"{_than(own, value, record.headline_mode)} of the best reference that takes no longer "
            f"({in_words(name)}: {spell(value)})."
        )
    strongest = by_role.get(STRONGEST)
    if strongest and _better(strongest[1], own, record.headline_mode):
        name, value, cost = strongest
        network = record.cost("model")
        dear = f", at {_rounded(cost / network)} times the network's seconds" if cost and network else ""
        told.append(f"Better still: {in_words(name)} ({spell(value)}{dear}).")
    if best := by_role.get(OPTIMUM):
        told.append(f"What is attainable: {spell(best[1])} ({in_words(best[0])}).")
    return told


def _than(own: float, other: float, mode: str) -> str:
    """How a score compares with another, as the beginning of a sentence."""
    if mode == "max" or own <= 0 or other <= 0:
        if own == other:
            return "That is the same as that"
        return f"That is {spell(abs(own - other))} {'higher' if own > other else 'lower'} than that"
    ratio = max(own, other) / min(own, other)
    if ratio < CLOSE:
        return "That is about the same as that"
    size = f"{_rounded(ratio)} times" if ratio >= 1.2 else f"{100 * (1 - min(own, other) / max(own, other)):.2g} %"
    if ratio < 1.2 and own > other:
        size = f"{100 * (ratio - 1):.2g} %"
    return f"That is {size} {'smaller' if own < other else 'larger'} than that"


def _rounded(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def _better(one: float, other: float, mode: str) -> bool:
    return one > other if mode == "max" else one < other
