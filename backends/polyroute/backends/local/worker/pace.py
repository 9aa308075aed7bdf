"""How much of the waiting prompts a step may read, so that those who are being answered hardly notice."""

from __future__ import annotations

_LEAST_SHARE = 0.5  # of a step's time, for prompts that wait
_WAITER = 2.0  # what one who waits for the first token weighs against one who gets the next
_LEAST = 16  # tokens a step that prompts get in any case


class Pace:
    """Shares each step's time between prompts and answers, by what it learns of their costs from how long steps take.

    Prompts get half of the time, or more where many wait beside few answers: the sooner they are read, the more answers
    share each step. `max_tokens` bounds a step in any case.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._costs = _Costs()

    def tokens(self, decoding: int, waiting: int) -> int:
        """How many tokens of prompts the next step may read beside `decoding` answers; `waiting` are not yet read."""
        room = max(_LEAST, self._max_tokens - decoding)
        if not decoding or not waiting:
            return room
        decode_s, token_s = self._costs.of(1, decoding, 0), self._costs.token_s
        if decode_s <= 0 or token_s <= 0:
            return room
        share = max(_LEAST_SHARE, _WAITER * waiting / (_WAITER * waiting + decoding))
        return min(room, max(_LEAST, int(share / (1 - share) * decode_s / token_s)))

    def note(self, decoding: int, prefilled: int, seconds: float) -> None:
        """Takes in what a step took that decoded for `decoding` answers and read `prefilled` tokens of prompts."""
        if decoding or prefilled:
            self._costs.learn((1.0, float(decoding), float(prefilled)), seconds)


class _Costs:
    """What a step costs: a part of its own, one for each answer, one for each token of a prompt; in seconds.

    Recursive least squares that forget only where there is something new to learn (directional forgetting, Kulhavy and
    Karny, 1984): steps that only decode do not make it forget what prompts cost.
    """

    _FORGET = 0.95
    _UNSURE = 1.0  # variance of what nothing is known of
    _SURPRISE = 4.0  # a step that takes so many times what was expected tells of the machine, not of the model
    _FEW = 10  # steps that are taken as they come

    def __init__(self) -> None:
        self._estimate = [0.0, 0.0, 0.0]
        self._spread = [[self._UNSURE if i == j else 0.0 for j in range(3)] for i in range(3)]
        self._steps = 0

    @property
    def token_s(self) -> float:
        """Seconds for a token of a prompt."""
        return max(0.0, self._estimate[2])

    def of(self, *counts: float) -> float:
        """Seconds for a step of so much of each."""
        return max(0.0, self._expected(counts))

    def learn(self, counts: tuple[float, float, float], seconds: float) -> None:
        """Takes in a step."""
        expected = self._expected(counts)
        self._steps += 1
        if self._steps > self._FEW and expected > 0:
            seconds = min(seconds, self._SURPRISE * expected)
        pull = [sum(row[j] * counts[j] for j in range(3)) for row in self._spread]
        novelty = sum(count * part for count, part in zip(counts, pull, strict=True))
        if novelty <= 0:
            return
        kept = self._FORGET - (1 - self._FORGET) / novelty
        for i in range(3):
            self._estimate[i] += pull[i] / (1 + novelty) * (seconds - expected)
            for j in range(3):
                self._spread[i][j] -= pull[i] * pull[j] / (1 / kept + novelty) if kept else 0.0

    def _expected(self, counts: tuple[float, ...]) -> float:
        return sum(cost * count for cost, count in zip(self._estimate, counts, strict=True))
