"""How long an attempt may take to its first token."""

from __future__ import annotations

from typing import Final

import msgspec

from polyroute.backends.pool.first_tokens import FirstTokens

USUAL_PERCENT: Final = 95
USUAL_FACTOR: Final = 2.0
"""What calls usually need to their first token: this many times the time of this percentile."""
LEAST_TRIAL_S: Final = 1.0
"""Least time for the first token of a replica whose half-open breaker is tried."""


class Patience(msgspec.Struct, frozen=True, gc=False):
    """How long a first event is waited for, in seconds; `hurried` where that may be less than calls usually need."""

    seconds: float
    hurried: bool = False


def usual_s(first_tokens: FirstTokens) -> float | None:
    """The time that calls usually need to their first token, in seconds; None while too little is known."""
    seconds = first_tokens.percentile_s(USUAL_PERCENT)
    return None if seconds is None else USUAL_FACTOR * seconds


def patience(
    limit_s: float, remaining_s: float | None, following: int, first_tokens: FirstTokens, *, trial: bool
) -> Patience:
    """The time for one attempt: `limit_s`, or less where `following` others may still be made elsewhere.

    It then gets an equal share of what remains until the deadline, so that a replica that hangs does not use all of
    it up; but no less than calls usually need. A `trial` of a replica that was ill gets no more than that.
    """
    if following <= 0 or (remaining_s is None and not trial):
        return Patience(limit_s)
    usually_s = usual_s(first_tokens)
    enough_s = usually_s or 0.0
    hurried = False
    if remaining_s is not None:
        share_s = max(remaining_s / (following + 1), enough_s)
        if share_s < limit_s and share_s + first_tokens.typical_s < remaining_s:
            limit_s, hurried = share_s, usually_s is None
    if trial and enough_s:
        limit_s = min(limit_s, max(LEAST_TRIAL_S, enough_s))
    return Patience(limit_s, hurried)
