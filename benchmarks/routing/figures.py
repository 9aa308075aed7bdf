"""What a run comes to, as figures and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.routing.simulation import Tally


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy's run. Goodput is in requests a second whose first token came in time; times are in seconds."""

    goodput: float
    in_time: float
    failed: int
    first_token_p50_s: float
    first_token_p99_s: float
    imbalance: float
    hit_rate: float

    @classmethod
    def of(cls, tally: Tally, lasted_s: float, in_time_s: float) -> Figures:
        """The figures of `tally`, whose arrivals lasted `lasted_s` seconds."""
        times = sorted(tally.first_token_s)
        good = sum(time <= in_time_s for time in times)
        return cls(
            goodput=good / lasted_s,
            in_time=good / tally.arrived,
            failed=tally.failed,
            first_token_p50_s=_percentile(times, 50),
            first_token_p99_s=_percentile(times, 99),
            imbalance=sum(tally.imbalance) / max(1, len(tally.imbalance)),
            hit_rate=tally.hit_tokens / max(1, tally.prompt_tokens),
        )


def table(rows: Mapping[str, Figures]) -> str:
    """A Markdown table with one row a policy."""
    head = "| policy | goodput, req/s | in time | failed | first token p50 | p99 | fullest / mean | prefix hits |"
    lines = [head, "|---" + "|---:" * 7 + "|"]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row.goodput:.2f} | {row.in_time:.2%} | {row.failed} | {row.first_token_p50_s * 1000:.0f} ms "
            f"| {row.first_token_p99_s:.2f} s | {row.imbalance:.2f} | {row.hit_rate:.1%} |"
        )
    return "\n".join(lines)


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else float("nan")
