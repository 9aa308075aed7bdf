"""A thousand reloads under load, a tenth of the files broken: no call fails, and nothing is left over."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from polyroute.backends.echo import EchoBackend, Script
from polyroute.backends.remote.backend import RemoteBackend
from polyroute.backends.remote.peer import Peer
from polyroute.core.call import Call
from polyroute.routing.permits import Permits
from polyroute.routing.registry import Deployment, Snapshot
from polyroute.server.app import Server
from polyroute.server.settings import Flags, settings
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import WAIT_S, Serving, serving, until
from tests.integration.test_server_process import FREE

RELOADS = 1000
CALLERS = 3
LONG = " ".join(["long", *map(str, range(150))])
"""A prompt whose answer takes so many reloads."""
OURS = (Snapshot, Deployment, Permits, RemoteBackend, Peer, EchoBackend)


def text(peer: str, chance: random.Random, *, broken: bool) -> str:
    """A file that always has the models `m` and `kept` and the route `r`, with some of the rest changed."""
    lines = ["default_model: r", "cache: {mode: deterministic}", "models:"]
    for id in ("m", "kept", *chance.sample(("a", "b", "c", "d"), k=2)):
        lines += [f"  - id: {id}", "    type: remote", f"    base_url: {peer}", "    peer_model: m", "    api: openai"]
        if id == "m":
            lines.append(f"    max_queue: {chance.randint(50, 60)}")  # taken on as it runs
            lines.append(f"    headers: {{x-version: '{chance.randint(1, 3)}'}}")  # takes another backend
        if id == "kept":
            lines.append(f"    timeout: {chance.randint(50, 60)}")
    weight = chance.randint(1, 9)
    lines += [
        "routes:",
        "  - id: r",
        f"    variants: [{{name: x, model: m, weight: {weight}}}, {{name: y, model: kept}}]",
    ]
    if broken:
        lines[chance.randrange(len(lines))] += chance.choice(("\n colour: red", ": [", " {", "\n\t- x"))
    return "\n".join([*lines, ""])


class Load:
    """Callers of a server, one call after another; `seen` counts how they ended: `whole`, or in another way."""

    def __init__(self, at: Serving) -> None:
        self._at = at
        self.seen: Counter[str] = Counter()
        self.done = False

    async def unary(self, model: str, caller: int) -> None:
        """Asks for answers that are stored, for each of them twice."""
        for turn in itertools.count():
            if self.done:
                break
            prompt = f"{caller} {turn // 2}"
            await self._counted(prompt, self._at.text(prompt, model=model, temperature=0))

    async def streams(self, model: str, prompt: str = "x y") -> None:
        while not self.done:
            await self._counted(prompt, self._streamed(model, prompt))

    async def _streamed(self, model: str, prompt: str) -> str:
        stream = self._at.inference.StreamGenerate(pb.GenerateRequest(model=model, prompt=prompt), timeout=WAIT_S)
        return "".join([event.delta.text async for event in stream])

    async def _counted(self, prompt: str, call: Any) -> None:
        try:
            text = await call
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a call that failed
            self.seen[repr(error)] += 1
        else:
            self.seen["whole" if text == prompt else text] += 1
            self.seen["long"] += text == LONG


class Turns:
    """Reloads, one after another: a long answer goes on by a token at each, and at once when they are `over`."""

    def __init__(self) -> None:
        self.over = False
        self._next = asyncio.Event()

    def turn(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def pause(self, _place: int) -> None:
        if not self.over:
            await self._next.wait()

    def script(self, call: Call) -> Script:
        return Script(pause=self.pause) if call.request.prompt == LONG else Script()


def of_ours() -> list[object]:
    """What there is of what a reload makes."""
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) in OURS]


def left_open() -> dict[str, int]:
    return {"tasks": len(asyncio.all_tasks()), "files": len(os.listdir("/proc/self/fd"))}


@asynccontextmanager
async def under_test(folder: Path, config: Path) -> AsyncIterator[Serving]:
    environ = {"POLYROUTE_CACHE_DIR": str(folder / "cache")}
    names = ("grpc_address", "http_address", "admin_address")
    flags: dict[str, Any] = dict(zip(names, FREE[1::2], strict=True))
    chosen = settings(Flags(config=config, watch=False, drain_timeout=0, **flags), environ)
    async with (
        Server(chosen, environ=environ) as server,
        grpc.aio.insecure_channel(str(server.grpc_address)) as channel,
        grpc.aio.insecure_channel(str(server.admin_address)) as admin,
    ):
        yield Serving(server, channel, admin)


async def test_a_thousand_reloads_under_load(tmp_path: Path) -> None:
    chance, turns = random.Random(4), Turns()
    others = of_ours()  # of tests before this one
    config = tmp_path / "models.yaml"
    async with serving(EchoBackend("m", script=turns.script), folder=tmp_path / "peer") as peer:
        url = f"http://{peer.server.http_address}"
        config.write_text(text(url, chance, broken=False))
        async with under_test(tmp_path, config) as at:
            load, reload = Load(at), at.server.reload
            await at.text()  # connections stand
            callers = [asyncio.create_task(load.unary("r", caller)) for caller in range(CALLERS)]
            callers += [asyncio.create_task(load.streams(model)) for model in ("m", "kept")]
            callers += [asyncio.create_task(load.streams(model, LONG)) for model in ("r", "m", "kept")]
            results: Counter[str] = Counter()
            before: dict[str, int] = {}
            for turn in range(RELOADS):
                broken = turn % 10 == 5
                config.write_text(text(url, chance, broken=broken))
                done = await reload.reload("call")
                assert bool(done.problems) == broken, done
                results["rejected" if done.problems else "changed" if done.changed else "unchanged"] += 1
                turns.turn()
                if turn == RELOADS // 10:
                    before = left_open()
            load.done = turns.over = True
            turns.turn()
            await asyncio.gather(*callers)
            assert set(load.seen) == {"whole", "long"}, load.seen
            assert load.seen["long"] >= 3 * (RELOADS // 200)
            stats = (await at.server.gateway.cache_stats()).models
            assert sum(model.hits for model in stats)
            assert sum(model.stores for model in stats)
            assert results["rejected"] == RELOADS // 10
            # The tested server and its peer: a snapshot each, four models here and one there.
            expected = {"Snapshot": 2, "Deployment": 5, "Permits": 5, "RemoteBackend": 4, "Peer": 4, "EchoBackend": 1}
            known = set(map(id, others))
            await until(lambda: Counter(type(o).__name__ for o in of_ours() if id(o) not in known) == expected)
            # One thing left over by every tenth reload would make 90.
            assert left_open()["tasks"] <= before["tasks"] + 20
            assert left_open()["files"] <= before["files"] + 20
