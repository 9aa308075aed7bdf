"""Means by inverse propensities, for variants whose share of the traffic changed while they were observed."""

from __future__ import annotations

from dataclasses import dataclass

from polyroute.routing.experiments.mean import Sample


@dataclass(frozen=True, slots=True)
class Weighted:
    """Sums over one variant's observations, each weighted by one over the probability with which it got the call.

    `squares` is the sum of squared weights; `weighted`, `weighted_squares` and `squared_values` are those of w y,
    w² y and w² y². Sums of several periods or routers add up.
    """

    count: int = 0
    weights: float = 0.0
    squares: float = 0.0
    weighted: float = 0.0
    weighted_squares: float = 0.0
    squared_values: float = 0.0

    def __add__(self, other: Weighted) -> Weighted:
        return Weighted(
            self.count + other.count,
            self.weights + other.weights,
            self.squares + other.squares,
            self.weighted + other.weighted,
            self.weighted_squares + other.weighted_squares,
            self.squared_values + other.squared_values,
        )

    @classmethod
    def of(cls, value: float, probability: float) -> Weighted:
        """One observation; raises `ValueError` for a probability that is not above 0 and at most 1."""
        if not 0 < probability <= 1:
            raise ValueError(f"a call fell to its variant with probability {probability:g}; that lies in (0, 1]")
        w = 1 / probability
        return cls(1, w, w * w, w * value, w * w * value, w * w * value * value)

    @property
    def sample(self) -> Sample:
        """The observations as `polyroute.routing.experiments.mean` takes them.

        The mean is Hájek's ("Comment", in V. Godambe and D. Sprott, Foundations of Statistical Inference, 1971): the
        weighted sum over the sum of weights. The variance is that of its linearised terms, w (y - mean) over the mean
        weight, so that an interval around it counts every observation once.
        """
        if self.count == 0:
            return Sample()
        mean = self.weighted / self.weights
        spread = self.squared_values - 2 * mean * self.weighted_squares + mean * mean * self.squares
        average = self.weights / self.count
        return Sample(self.count, mean, max(0.0, spread / self.count / (average * average)))

    @property
    def sample_of_successes(self) -> Sample:
        """The same where each observation is 0 or 1: as `Sample.of_successes` with the variance of one success and one
        failure more, of average weight, so that it is never 0 for want of one or the other."""
        if self.count == 0:
            return Sample()
        w = self.weights / self.count
        smooth = self + Weighted(2, 2 * w, 2 * w * w, w, w * w, w * w)
        return Sample(self.count, self.weighted / self.weights, smooth.sample.variance)
