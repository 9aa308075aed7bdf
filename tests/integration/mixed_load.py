"""Calls of every kind to one server, and exact notes of what came of each, by the callers' own count."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.config import Config
from polyroute.core.errors import PeerFailed
from polyroute.server.settings import Settings
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import ANYWHERE, WAIT_S, Serving, refusal_of, serving, until
from tests.integration.rest_serving import rest_over

ILL = Script(error=PeerFailed("as the test wants it"))


@dataclass(slots=True)
class Notes:
    """What callers saw, by the name that they asked for."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Calls by name and outcome: `miss`, `hit` or `bypass` of one that was answered, else the error's reason."""
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Tokens of whole answers by name and type, `input` or `output`."""
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Attempts that answers tell of, by deployment and outcome."""

    replicas: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """The same by deployment, replica and outcome."""

    def answered(self, name: str, route: pb.Route, usage: pb.Usage) -> None:
        cache = pb.CacheResult.Name(route.cache).removeprefix("CACHE_RESULT_").lower()
        self.outcomes[name, cache] += 1
        self.tokens[name, "input"] += usage.prompt_tokens
        self.tokens[name, "output"] += usage.completion_tokens
        if cache != "hit":
            for attempt in route.attempts:
                outcome = attempt.error.reason or "ok"
                self.attempts[attempt.deployment, outcome] += 1
                self.replicas[attempt.deployment, attempt.replica, outcome] += 1


@dataclass(slots=True)
class Load:
    """Asks a server, and notes what comes back."""

    at: Serving
    gate: asyncio.Event
    """What the models `narrow` and `endless` wait for in the middle of an answer."""
    notes: Notes = field(default_factory=Notes)

    async def ask(
        self, model: str, prompt: str, timeout_s: float = WAIT_S, traceparent: str = "", **fields: Any
    ) -> None:
        """One unary call."""
        metadata = (("traceparent", traceparent),) if traceparent else None
        request = pb.GenerateRequest(model=model, prompt=prompt, **({"temperature": 0} | fields))
        try:
            answer = await self.at.inference.Generate(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and timeout_s < WAIT_S
            self.notes.outcomes[model, "DEADLINE_EXCEEDED" if late else refusal_of(error).reason] += 1
            return
        self.notes.answered(model, answer.route, answer.usage)

    async def stream(self, model: str, prompt: str) -> None:
        """One streamed call, read to its end."""
        request = pb.GenerateRequest(model=model, prompt=prompt, temperature=0)
        events = [event async for event in self.at.inference.StreamGenerate(request, timeout=WAIT_S)]
        self.notes.answered(model, events[0].start.route, events[-1].end.usage)

    async def leave(self, model: str) -> None:
        """One streamed call that is cancelled in the middle."""
        call = self.at.inference.StreamGenerate(pb.GenerateRequest(model=model, prompt="a b c d"), timeout=WAIT_S)
        for _ in range(3):
            await call.read()
        call.cancel()
        self.notes.outcomes[model, "CANCELLED"] += 1

    async def crowd(self) -> None:
        """One call takes the only permit, another waits for it, and a third finds the queue full."""
        narrow = lambda: self.at.server.gateway.model("narrow")  # noqa: E731
        self.gate.clear()
        first = asyncio.create_task(self.ask("narrow", "one two three"))
        await until(lambda: narrow().in_flight == 1)
        second = asyncio.create_task(self.ask("narrow", "four five"))
        await until(lambda: narrow().queued == 1)
        await self.ask("narrow", "no room")
        self.gate.set()
        await asyncio.gather(first, second)
        self.gate.clear()

    async def round(self, number: int) -> None:
        """Every kind of call once at least, with prompts that no other round has."""
        for i in range(4):
            await self.ask("split", f"round {number} call {i}", routing=pb.RoutingOptions(user=f"u{i}"))
            await self.ask("split", f"round {number} call {i}", routing=pb.RoutingOptions(user=f"u{i}"))
            await self.stream("split", f"round {number} stream {i}")
            await self.ask("pair", f"round {number} call {i}")
            await self.ask("hedged", f"round {number} call {i}")
            await self.ask("spent", f"round {number} call {i}")
            await self.ask("safe", f"round {number} call {i}")
            await self.ask("rolled", f"round {number} call {i}")
        for i in range(2):  # five copies that fail in a row would be the last for a while
            await self.ask("shadowed", f"round {number} call {i}", cache=pb.CacheOptions(mode=pb.CACHE_MODE_BYPASS))
        await self.crowd()
        await self.leave("endless")
        await self.ask("endless", "too late", timeout_s=0.3)
        await self.ask("nobody", "who is there")
        await self.ask("split", "bad", temperature=-1)
        for i in range(2):
            await self.ask("tiny", f"once upon a time there was a router {number}", max_tokens=6 + i)
            await self.stream("tiny", f"once upon a time there was a router {number} {i}")


@asynccontextmanager
async def mixed(folder: Path, tiny: Path, environ: Mapping[str, str]) -> AsyncIterator[Load]:
    """A server with models of every kind: echoes, pools of ill and well peers, and the local model in `tiny`."""
    gate = asyncio.Event()
    held = Script(gate=gate, gate_after=2)
    echoes = [EchoBackend("one"), EchoBackend("two"), EchoBackend("narrow", script=held)]
    echoes.append(EchoBackend("endless", script=held))
    async with AsyncExitStack() as stack:
        well = await stack.enter_async_context(rest_over(EchoBackend("pair"), EchoBackend("hedged")))
        slow = Script(pause=lambda place: asyncio.sleep(0 if place else 0.4))
        ill = await stack.enter_async_context(
            rest_over(
                EchoBackend("pair", script=ILL),
                EchoBackend("hedged", script=slow),
                EchoBackend("spent", script=ILL),
                EchoBackend("gone", script=ILL),
            )
        )
        config = Config.model_validate(_config(well.url, ill.url, tiny))
        settings = Settings(
            config,
            ANYWHERE,
            ANYWHERE,
            ANYWHERE,
            cache_dir=folder,
            cache_bytes=2**24,
            state_url=f"sqlite:///{folder / 'state.db'}",
        )
        at = await stack.enter_async_context(serving(*echoes, folder=folder, settings=settings, environ=environ))
        load = Load(at, gate)
        yield load
        gate.set()


def _config(well: str, ill: str, tiny: Path) -> dict[str, Any]:
    def remote(id: str, *urls: str, **options: Any) -> dict[str, Any]:
        return {"id": id, "type": "remote", "base_urls": urls or ["http://127.0.0.1:9"], **options}

    return {
        "default_model": "one",
        "cache": {"mode": "deterministic"},
        "models": [
            remote("one"),
            remote("two"),
            remote("narrow", max_concurrency=1, max_queue=1, cache={"mode": "off"}),
            remote("endless", cache={"mode": "off"}),
            remote("pair", ill, well, balance="round_robin", breaker={"failures": 2, "open": "60s", "max_open": "60s"}),
            remote("hedged", ill, well, balance="round_robin", hedge={"after": 0.05}),
            remote("spent", ill, retry_budget={"share": 0, "min_per_second": 0}, breaker="off"),
            remote("gone", ill, retries=0, breaker="off"),
            {"id": "tiny", "type": "local", "source": str(tiny), "device": "cpu", "kv_cache_memory": "16MiB"},
        ],
        "routes": [
            {"id": "split", "variants": [{"name": "a", "model": "one"}, {"name": "b", "model": "two"}]},
            {"id": "shadowed", "model": "one", "shadow": [{"model": "two"}, {"model": "gone"}]},
            {
                "id": "rolled",
                "variants": [{"name": "old", "model": "one"}, {"name": "new", "model": "two"}],
                "rollout": {"from": "old", "to": "new", "steps": [{"weight": 0.25, "hold": "1h"}]},
            },
            {"id": "safe", "model": "gone", "fallback": ["two"]},
        ],
    }
