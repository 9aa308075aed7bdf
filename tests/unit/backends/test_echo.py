"""The scriptable backend does what its script says, and counts what became of its calls."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from polyroute.backends.echo import EchoBackend, Pause, Script
from polyroute.core.backend import Backend, ModelState
from polyroute.core.call import Call
from polyroute.core.errors import ModelFailed, PeerFailed
from polyroute.core.event import Event, Finished, FinishReason, Started, Token
from polyroute.core.request import Message, Request, Sampling


def a_call(prompt: str = "one two  three", **sampling: int) -> Call:
    return Call(Request(model="echo", prompt=prompt, sampling=Sampling(**sampling)), "r1")


async def events_of(backend: Backend, call: Call) -> list[Event]:
    return [event async for event in backend.stream(call)]


def text_of(events: list[Event]) -> str:
    return "".join(e.text for e in events if isinstance(e, Token))


def reaching(event: asyncio.Event) -> Pause:
    async def pause(_place: int) -> None:
        event.set()

    return pause


async def test_echoes_the_prompt_word_by_word() -> None:
    backend = EchoBackend("echo")
    events = await events_of(backend, a_call())
    assert isinstance(events[0], Started)
    assert (events[0].route.model, events[0].route.version, events[0].route.replica) == ("echo", "echo-1", "echo")
    assert text_of(events) == "one two  three"
    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.STOP
    assert events[-1].usage.completion_tokens == 4
    assert (backend.open, backend.completed, backend.failed, backend.closed_early) == (0, 1, 0, 0)


async def test_echoes_the_last_message() -> None:
    messages = (Message("system", "be brief"), Message("user", "hello there"))
    events = await events_of(EchoBackend("echo"), Call(Request(messages=messages), "r1"))
    assert text_of(events) == "hello there"


async def test_max_tokens_cuts_the_answer() -> None:
    events = await events_of(EchoBackend("echo"), a_call(max_tokens=2))
    assert text_of(events) == "one two "
    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.LENGTH


async def test_an_empty_answer_still_starts_and_finishes() -> None:
    events = await events_of(EchoBackend("echo", script=Script(texts=())), a_call())
    assert [type(e) for e in events] == [Started, Finished]


@pytest.mark.parametrize(("after", "seen"), [(0, []), (2, [Started, Token, Token]), (3, [Started, *[Token] * 3])])
async def test_an_error_comes_where_the_script_says(after: int, seen: list[type]) -> None:
    script = Script(texts=("a", "b", "c"), error=PeerFailed("no"), error_after=after)
    backend = EchoBackend("echo", script=script)
    events = backend.stream(a_call())
    assert [type(await anext(events)) for _ in seen] == seen
    with pytest.raises(PeerFailed):
        await anext(events)
    assert (backend.open, backend.failed, backend.closed_early) == (0, 1, 0)


async def test_hangs_until_released_and_counts_open_calls() -> None:
    begun, gate = asyncio.Event(), asyncio.Event()
    backend = EchoBackend("echo", script=Script(gate=gate, pause=reaching(begun)))
    task = asyncio.create_task(events_of(backend, a_call()))
    await begun.wait()
    assert backend.open == 1
    assert backend.status().replicas[0].in_flight == 1
    gate.set()
    assert text_of(await task) == "one two  three"
    assert backend.open == 0


async def test_leaving_early_is_counted() -> None:
    backend = EchoBackend("echo")
    async with aclosing(backend.stream(a_call())) as events:  # type: ignore[type-var]
        await anext(events)
    assert (backend.open, backend.completed, backend.closed_early) == (0, 0, 1)


async def test_a_cancelled_call_is_counted() -> None:
    begun = asyncio.Event()
    backend = EchoBackend("echo", script=Script(gate=asyncio.Event(), pause=reaching(begun)))
    task = asyncio.create_task(events_of(backend, a_call()))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (backend.open, backend.failed, backend.closed_early) == (0, 0, 1)


async def test_a_script_may_depend_on_the_call() -> None:
    backend = EchoBackend("echo", script=lambda call: Script(texts=(call.request_id,)))
    assert text_of(await events_of(backend, a_call())) == "r1"


async def test_loading_and_failing() -> None:
    backend = EchoBackend("echo", state=ModelState.COLD)
    backend.load_error = ModelFailed("no weights")
    with pytest.raises(ModelFailed):
        await backend.load()
    assert backend.status().state is ModelState.FAILED
    with pytest.raises(ModelFailed, match="no weights"):
        await events_of(backend, a_call())
    backend.load_error = None
    await backend.load()
    assert backend.status().state is ModelState.WARM
    await backend.unload(3.0)
    assert backend.unloads == [3.0]
    assert backend.status().state is ModelState.COLD
