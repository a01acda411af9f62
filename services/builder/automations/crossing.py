"""When a metric crosses its threshold: once, and again only after it came back."""

from __future__ import annotations

import math

from services.builder.automations.domain import Bound, Trigger


def crosses(trigger: Trigger, value: float, *, armed: bool) -> tuple[bool, bool]:
    """Look at a value; return whether the trigger fires, and whether it is armed after it.

    NaN says nothing. The threshold itself is on neither side: it does not fire, and arms.
    """
    if math.isnan(value):
        return False, armed
    above = trigger.bound is Bound.ABOVE
    beyond = value > trigger.threshold if above else value < trigger.threshold
    return beyond and armed, not beyond


def explain(trigger: Trigger, value: float, of: str) -> str:
    """Say that a value crossed, with the figures."""
    side = "above" if trigger.bound is Bound.ABOVE else "below"
    return f"{trigger.metric} {value:.6g} of {of} is {side} {trigger.threshold:.6g}"
