"""The local backend with real worker processes and tiny models."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from polyroute.backends.local.backend import LocalBackend
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.config import LocalConfig
from polyroute.core.errors import (
    DeadlineExceeded,
    Draining,
    InvalidArgument,
    ModelLoading,
    PromptTooLong,
    Unavailable,
    Unsupported,
    WorkerDied,
)
from polyroute.core.event import Event, Finished, FinishReason, Started, Token
from polyroute.core.request import Message, Request, Sampling, Tool

WAIT_S = 90.0
ENDLESS = Request(prompt="go on", sampling=Sampling(temperature=1.0, seed=3, max_tokens=400), stop=("never there",))


def local(folder: Path, cache_dir: Path, **options: object) -> LocalBackend:
    config = LocalConfig.model_validate({"id": "tiny", "type": "local", "source": str(folder), "device": "cpu"})
    return LocalBackend(config, cache_dir=cache_dir, **options)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def warm(folder: Path, cache_dir: Path, **options: object) -> AsyncIterator[LocalBackend]:
    backend = local(folder, cache_dir, **options)
    try:
        await asyncio.wait_for(backend.load(), WAIT_S)
        yield backend
    finally:
        await backend.stop()


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not reached():  # noqa: ASYNC110 - what is watched is another process
            await asyncio.sleep(0.01)


async def collect(backend: LocalBackend, request: Request) -> list[Event]:
    async with asyncio.timeout(WAIT_S), contextlib.aclosing(backend.stream(Call(request, "r"))) as events:
        return [event async for event in events]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


def pid_of(backend: LocalBackend) -> int:
    return int(backend.status().detail.split(",")[0].removeprefix("pid "))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_life_of_a_backend(tiny_llama: Path, tmp_path: Path) -> None:
    """One worker serves all of these, because starting one takes seconds."""
    async with warm(tiny_llama, tmp_path) as backend:
        status = backend.status()
        assert (status.state, status.context_length, status.chat) == (ModelState.WARM, 512, True)
        assert status.greedy_default
        assert status.defaults == Sampling(None, 0.0, 1.0, 50, 0.0, 1.0)  # as `generate` has them
        assert len(status.version) == 12
        await answers_equal_generate(backend, tiny_llama)
        await chat_goes_through_the_template(backend, tiny_llama)
        await bad_input_is_named(backend)
        await tokens_are_counted(backend, tiny_llama)
        await leaving_stops_the_sequence(backend)
        await a_reader_who_stands_still_holds_up_nobody(backend)
        await a_deadline_ends_the_call(backend)
        assert backend.status().replicas[0].in_flight == 0


async def answers_equal_generate(backend: LocalBackend, folder: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def wanted(prompt: str) -> str:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False)
        return str(tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True))

    prompts = ["What is the capital of France?", "Съешь ещё", "今天天气", "👍 👩", "a" * 400]
    answers = await asyncio.gather(
        *(collect(backend, Request(prompt=p, sampling=Sampling(max_tokens=30, temperature=0))) for p in prompts)
    )
    assert [text_of(events) for events in answers] == [wanted(prompt) for prompt in prompts]
    started, *_, finished = answers[0]
    assert isinstance(started, Started)
    assert (started.route.model, started.route.version) == ("tiny", backend.status().version)
    assert started.route.replica == "tiny#0"
    assert isinstance(finished, Finished)
    assert finished.usage.completion_tokens == 30
    assert finished.reason is FinishReason.LENGTH


async def chat_goes_through_the_template(backend: LocalBackend, folder: Path) -> None:
    rendered = "<s>user\nhi</s>\n<s>assistant\n"
    greedy = Sampling(max_tokens=10, temperature=0)
    chat = await collect(backend, Request(messages=(Message("user", "hi"),), sampling=greedy))
    plain = await collect(backend, Request(prompt=rendered, sampling=greedy))
    assert text_of(chat) == text_of(plain)


async def bad_input_is_named(backend: LocalBackend) -> None:
    with pytest.raises(PromptTooLong, match=r"prompt: \d+ tokens, but the model's context holds 512") as too_long:
        await collect(backend, Request(prompt="word " * 5000))
    assert too_long.value.field == "prompt"
    with pytest.raises(PromptTooLong) as too_long:
        await collect(backend, Request(messages=(Message("user", "word " * 5000),)))
    assert too_long.value.field == "messages"
    with pytest.raises(InvalidArgument, match="no tool messages, please"):
        await collect(backend, Request(messages=(Message("tool", "x", tool_call_id="1"),)))
    with pytest.raises(Unsupported, match="tools"):
        await collect(backend, Request(messages=(Message("user", "x"),), tools=(Tool("f"),)))


async def tokens_are_counted(backend: LocalBackend, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    counted = await backend.count_tokens(Call(Request(prompt="How many?"), "r"))
    assert (counted.prompt_tokens, counted.context_length) == (len(tokenizer("How many?")["input_ids"]), 512)
    long = await backend.count_tokens(Call(Request(prompt="word " * 5000), "r"))
    assert long.prompt_tokens > 512


async def leaving_stops_the_sequence(backend: LocalBackend) -> None:
    """The worker says itself that it holds the answer no longer, long before the answer would have ended."""
    events = backend.stream(Call(ENDLESS, "r"))
    assert isinstance(await anext(events), Started)
    assert backend.status().replicas[0].in_flight == 1
    await events.aclose()
    await until(lambda: backend.status().replicas[0].in_flight == 0)

    reading = asyncio.create_task(collect(backend, ENDLESS))
    await until(lambda: backend.status().replicas[0].in_flight == 1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await until(lambda: backend.status().replicas[0].in_flight == 0)


async def a_reader_who_stands_still_holds_up_nobody(backend: LocalBackend) -> None:
    whole = text_of(await collect(backend, ENDLESS))
    async with contextlib.aclosing(backend.stream(Call(ENDLESS, "slow"))) as slow:
        assert isinstance(await anext(slow), Started)
        assert text_of(await collect(backend, ENDLESS)) == whole
        await until(lambda: backend.status().replicas[0].in_flight == 0)  # the slow one's answer is complete too
        rest = [event async for event in slow]
    assert text_of(rest) == whole
    assert len(rest) <= 3  # what waited came as one


async def a_deadline_ends_the_call(backend: LocalBackend) -> None:
    late = backend.stream(Call(ENDLESS, "r", deadline=time.monotonic()))
    with pytest.raises(DeadlineExceeded):
        await anext(late)
    await until(lambda: backend.status().replicas[0].in_flight == 0)


async def test_a_killed_worker_ends_its_calls_and_is_replaced(tiny_llama: Path, tmp_path: Path) -> None:
    restarts: list[int] = []
    async with warm(tiny_llama, tmp_path, on_restart=lambda: restarts.append(1)) as backend:
        before = text_of(await collect(backend, ENDLESS))
        async with contextlib.aclosing(backend.stream(Call(ENDLESS, "r"))) as events:
            await anext(events)
            os.kill(pid_of(backend), signal.SIGKILL)
            with pytest.raises(WorkerDied, match="SIGKILL"):
                async for _ in events:
                    pass
        with pytest.raises(ModelLoading) as loading:
            await collect(backend, ENDLESS)
        assert loading.value.retry_after_s
        await asyncio.wait_for(backend.load(), WAIT_S)
        assert text_of(await collect(backend, ENDLESS)) == before
        assert restarts == [1]


async def test_a_stop_ends_calls_and_worker(tiny_llama: Path, tmp_path: Path) -> None:
    backend = local(tiny_llama, tmp_path)
    try:
        await backend.start()
        assert backend.status().state is ModelState.COLD
        with pytest.raises(Unavailable, match="`tiny` is not loaded"):
            await collect(backend, ENDLESS)
        assert (backend.status().state, backend.footprint) == (ModelState.COLD, None)
        await asyncio.wait_for(backend.load(), WAIT_S)
        footprint = backend.footprint
        assert footprint is not None
        assert (footprint.device, footprint.device_bytes) == ("cpu", 0)
        assert footprint.bytes > 50 << 20  # torch alone is more
        assert footprint.kv_bytes >= 1 << 26
        version, pid = backend.status().version, pid_of(backend)
        reading = asyncio.create_task(collect(backend, ENDLESS))
        await until(lambda: backend.status().replicas[0].in_flight == 1)
    finally:
        await backend.stop()
    with pytest.raises(Draining):
        await reading
    assert not alive(pid)
    assert (backend.status().state, backend.status().version) == (ModelState.COLD, version)
    assert backend.status().replicas[0].in_flight == 0


async def test_signals_for_the_router_do_not_end_the_worker(tiny_llama: Path, tmp_path: Path) -> None:
    async with warm(tiny_llama, tmp_path) as backend:
        pid = pid_of(backend)
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert isinstance((await collect(backend, ENDLESS))[-1], Finished)
    assert not alive(pid)


async def test_the_worker_says_how_its_engine_is(tiny_llama: Path, tmp_path: Path) -> None:
    """While it works, and once more when it has come to rest; nothing is left when it is gone."""
    async with warm(tiny_llama, tmp_path) as backend:
        engine = lambda: backend.status().replicas[0].engine  # noqa: E731
        await until(lambda: engine() is not None)
        before = engine()
        assert before is not None
        assert before.running == 0
        async with contextlib.aclosing(backend.stream(Call(ENDLESS, "r"))) as events:
            await anext(events)
            await until(lambda: engine() != before)
        await until(lambda: backend.status().replicas[0].in_flight == 0)
        done = await collect(backend, Request(prompt="go on", sampling=Sampling(max_tokens=7, temperature=0)))
        assert isinstance(done[-1], Finished)
        await until(lambda: (now := engine()) is not None and now.running == 0 and now.output_tokens > 7)
        os.kill(pid_of(backend), signal.SIGKILL)
        await until(lambda: engine() is None)
    assert backend.status().replicas[0].engine is None
