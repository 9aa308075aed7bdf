"""A server that one test may change: remote models alone, so that it starts at once, an experiment and a rollout."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.e2e.running import Running, serving

MODELS: Final = """\
default_model: team/plain
models:
  - {{id: team/plain, type: remote, base_url: "{peer}", api: openai, version: v1, api_key: "${{TEAM_KEY}}"}}
  - {{id: team/terse, type: remote, base_url: "{peer}", api: openai, version: v2}}
"""
ROUTES: Final = """\
routes:
  - id: chat
    sticky_by: [user, request]
    variants: [{name: stable, model: team/plain}, {name: trial, model: team/terse}]
  - id: team/rolling
    sticky_by: [user, request]
    variants: [{name: old, model: team/plain}, {name: new, model: team/terse, weight: 0}]
    rollout: {from: old, to: new, steps: [{weight: 10%, hold: 1h}, {weight: 50%, hold: 1h}], run: 1}
"""
SECRET: Final = "sekret-of-the-team"


@dataclass(slots=True)
class Operated:
    """The server, its file, and a caller of it."""

    running: Running
    file: Path
    peer: str
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.running.url

    def write(self, *, before: str = "", after: str = "") -> None:
        """Writes the file, with more before or after what stands in it."""
        self.file.write_text(before + MODELS.format(peer=self.peer) + ROUTES + after)

    async def ask(self, prompt: str, model: str = "", user: str = "") -> str:
        """The text of one answer."""
        message = {"messages": [{"role": "user", "content": prompt}]}
        body = {"model": model, "messages": message, "temperature": 0, "routing": {"user": user}}
        answer = await self.call("InferenceService/Generate", body)
        text: str = answer["text"]
        return text

    async def call(self, method: str, message: dict[str, Any]) -> Any:
        """What one method answers; it must."""
        async with self.client.post(f"{self.url}/polyroute.v1.{method}", json=message) as answer:
            told = await answer.json()
            assert answer.status == 200, told
            return told


@asynccontextmanager
async def operating(folder: Path, peer: str) -> AsyncIterator[Operated]:
    """The server, ready; `peer` is the URL of what runs its models."""
    file = folder / "models.yaml"
    file.write_text(MODELS.format(peer=peer) + ROUTES)
    environ = {"POLYROUTE_STATE_URL": f"sqlite:///{folder / 'state.db'}", "TEAM_KEY": SECRET, "POLYROUTE_WATCH": "off"}
    with ExitStack() as stack:
        running = stack.enter_context(serving(folder, "--config", str(file), environ=environ))
        await asyncio.to_thread(running.wait_ready)
        async with aiohttp.ClientSession() as client:
            yield Operated(running, file, peer, client)
        await asyncio.to_thread(stack.close)
