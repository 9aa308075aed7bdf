"""`polyroute chat` in a real terminal (a pty)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from tests.integration.client_peer import LIMIT_S, Failure, Peer, serving
from tests.integration.test_client_cli import POLYROUTE, environ, polyroute


class Terminal:
    """What a person sees and types."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process = process
        self._master = master
        self._seen = b""

    async def see(self, text: str) -> str:
        """What appeared up to and with `text`."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(LIMIT_S):
            while text.encode() not in self._seen:
                ready = loop.create_future()
                loop.add_reader(self._master, ready.set_result, None)
                try:
                    await ready
                finally:
                    loop.remove_reader(self._master)
                self._seen += os.read(self._master, 65536)
        before, found, self._seen = self._seen.partition(text.encode())
        return (before + found).decode()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def ended(self) -> int:
        """The exit code; what is still printed is read, so that nothing waits for it."""
        waiting = asyncio.create_task(self.process.wait())
        while not waiting.done():
            os.set_blocking(self._master, False)
            try:
                self._seen += os.read(self._master, 65536)
            except (BlockingIOError, OSError):
                await asyncio.wait({waiting}, timeout=0.05)
        return await waiting

    async def interrupted(self) -> int:
        """The exit code after Ctrl-C at the prompt, pressed again where Python's `input` has missed it: it does not
        see one that comes in the very moment between the prompt and the wait for a key."""
        ending = asyncio.create_task(self.ended())
        async with asyncio.timeout(LIMIT_S):
            while not ending.done():
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    self.type("\x03")
                await asyncio.wait({ending}, timeout=1)
        return await ending


@asynccontextmanager
async def terminal(peer: Peer, *arguments: str) -> AsyncIterator[Terminal]:
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("on_terminal.py")), POLYROUTE, *arguments),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environ(peer, {"TERM": "dumb"}),
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)


async def test_a_conversation() -> None:
    async with serving(Peer()) as peer, terminal(peer, "chat", "--system", "Be brief.") as shown:
        assert "demo (warm)" in await shown.see("> ")
        shown.type("Capital of France?\n")
        await shown.see("Paris.")
        await shown.see("> ")
        shown.type("And now?\n")
        await shown.see("Paris.")
        await shown.see("> ")
        shown.type("/clear\n")
        await shown.see("> ")
        shown.type("/model other\n")
        await shown.see("> ")
        shown.type("/system\n")
        await shown.see("> ")
        shown.type("Again\n")
        await shown.see("Paris.")
        await shown.see("> ")
        shown.type("/help\n")
        await shown.see("/quit")
        await shown.see("> ")
        shown.type("/nope\n")
        await shown.see("no command `/nope`")
        await shown.see("> ")  # what is typed before the prompt may be thrown away
        shown.type("\x04")
        assert await shown.ended() == 0
    said = [[(m.role, m.content) for m in r.messages.messages] for r in peer.requests("StreamGenerate")]
    first = [("system", "Be brief."), ("user", "Capital of France?")]
    assert said == [first, [*first, ("assistant", "Paris."), ("user", "And now?")], [("user", "Again")]]
    assert [request.model for request in peer.requests("StreamGenerate")] == ["", "", "other"]


async def test_ctrl_c_stops_the_answer_and_the_conversation_goes_on() -> None:
    async with serving(Peer(endless=True)) as peer, terminal(peer, "chat") as shown:
        await shown.see("> ")
        shown.type("Talk\n")
        await shown.see("Paris.")
        await asyncio.wait_for(peer.streaming.wait(), LIMIT_S)
        shown.type("\x03")
        await asyncio.wait_for(peer.cancelled.wait(), LIMIT_S)
        await shown.see("(stopped)")
        await shown.see("> ")
        peer.endless = False
        shown.type("Go on\n")
        await shown.see("Paris.")
        await shown.see("> ")
        assert await shown.interrupted() == 0
    last = peer.requests("StreamGenerate")[-1]
    assert [m.content for m in last.messages.messages] == ["Talk", "Paris.", "Go on"]


async def test_an_error_is_said_and_its_question_forgotten() -> None:
    async with serving(Peer()) as peer, terminal(peer, "chat") as shown:
        await shown.see("> ")
        peer.failures = [Failure(grpc.StatusCode.INVALID_ARGUMENT, "9000 tokens", "PROMPT_TOO_LONG")]
        shown.type("Long\n")
        await shown.see("PROMPT_TOO_LONG: 9000 tokens")
        await shown.see("/clear")
        await shown.see("> ")
        shown.type("Short\n")
        await shown.see("Paris.")
        await shown.see("> ")
        shown.type("/quit\n")
        assert await shown.ended() == 0
    assert [m.content for m in peer.requests("StreamGenerate")[-1].messages.messages] == ["Short"]


async def test_a_terminal_is_not_steered_by_an_answer() -> None:
    """Sequences are left out, also where two deltas share one."""
    deltas = ("a\x1b[31mb", "\x1b", "[2", "Jc", "\x9b1mD\x07\x08", "\x1b]0;title\x07E\n")
    async with serving(Peer(deltas=deltas)) as peer, terminal(peer, "generate", "x") as shown:
        printed = await shown.see("E")
    assert printed == "abcD]0;titleE"


async def test_a_pipe_holds_a_conversation_too() -> None:
    async with serving(Peer()) as peer:
        done = await polyroute("chat", peer=peer, stdin=b"One\nTwo\n")
    assert (done.code, done.out, done.err) == (0, "Paris.\nParis.\n", "")
    assert len(peer.requests("StreamGenerate")[-1].messages.messages) == 3


async def test_a_server_that_is_not_there_is_said_at_once() -> None:
    async with serving(Peer()) as peer:
        pass
    done = await polyroute("chat", peer=peer)
    assert done.code == 1
    assert "UNREACHABLE" in done.err
