"""A rollout as one router follows it: which of its calls count, and what they have shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isclose

from polyroute.routing.experiments.records import OK, CallRecord
from polyroute.routing.experiments.rollout.comparison import Comparison
from polyroute.routing.experiments.rollout.decision import State
from polyroute.routing.experiments.rollout.evidence import Evidence
from polyroute.routing.experiments.rollout.looks import Case
from polyroute.routing.experiments.rollout.steering import share, version_of
from polyroute.routing.experiments.rollout.store import Row
from polyroute.routing.registry import Snapshot


def name(state: State) -> str:
    """The state as metrics and logs name it."""
    return state.name.lower()


@dataclass(slots=True)
class Followed:
    """A rollout of the configuration in force, and what this router has seen of it.

    Calls count that chance gave one of the two versions, by the shares that they have now. Those that began before are
    left out. Failures often end sooner than answers, so of what a version has got just now failures come first; beside
    calls that the other one has had for long, it would seem to fail more.
    """

    case: Case
    row: Row
    comparison: Comparison
    kept: Evidence = field(default_factory=Evidence)
    foreign: bool = False
    moves: dict[str, int] = field(default_factory=lambda: {name(state): 0 for state in State})

    def saw(self, record: CallRecord) -> None:
        """Counts a call that has ended."""
        if not self._counts(record):
            return
        new = record.variant == self.case.plan.to
        if record.own_deadline and record.outcome != OK:
            # No failure of the version, but it took at least as long as the caller had.
            self.comparison.took(new, record.first_token_s or record.total_s, record.total_s)
        elif record.evidence and record.failed:
            self.comparison.failed(new)
        elif record.evidence:
            self.comparison.answered(new, record.first_token_s, record.total_s)

    def rated(self, record: CallRecord, metric: str, rating: float) -> None:
        """Counts what a caller said of an answer that one of the two versions gave at the present step."""
        plan = self.case.plan
        answered = record.evidence and not record.failed and record.at >= self.row.standing.since
        if metric in plan.guardrails.quality and answered and self._counts(record):
            self.comparison.rated(record.variant == plan.to, metric, rating)

    @property
    def seen(self) -> Evidence:
        """Everything that this router has seen by now."""
        return self.comparison.evidence()

    def now(self, snapshot: Snapshot) -> Case:
        """The case with what has been seen, and how the two models are in the registry in force."""
        plan, rule = self.case.plan, snapshot.rules[self.case.route]
        versions = (version_of(rule, name) for name in (plan.from_, plan.to))
        old, new = (snapshot.deployments[version].backend.facts().state for version in versions)
        seen = self.seen
        return Case(self.case.route, self.case.identity, plan, seen, seen != self.kept, old, new)

    def stands(self, row: Row) -> None:
        """Where it stands now."""
        if row.weight != self.row.weight:
            self.comparison.anew()
        self.row = row

    def _counts(self, record: CallRecord) -> bool:
        plan, stands = self.case.plan, self.row.standing.state
        if record.variant not in (plan.from_, plan.to) or not record.assigned or stands is State.PENDING:
            return False
        return isclose(share(record.shares, plan), self.row.weight)
