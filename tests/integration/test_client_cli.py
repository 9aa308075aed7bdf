"""The command line as real processes against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from polyroute.v1 import inference_pb2, models_pb2
from tests.integration.client_peer import LIMIT_S, Failure, Peer, serving

POLYROUTE = str(Path(sys.executable).parent / "polyroute")


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str


def environ(peer: Peer | None, more: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("POLYROUTE_")}
    if peer is not None:
        kept |= {"POLYROUTE_GRPC_ADDRESS": peer.address, "POLYROUTE_ADMIN_ADDRESS": peer.address}
    return kept | dict(more or {})


async def polyroute(
    *arguments: str | bytes, peer: Peer | None = None, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> Ended:
    """What a command printed, and its exit code."""
    process = await asyncio.create_subprocess_exec(
        POLYROUTE, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environ(peer, env)
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), LIMIT_S)
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Ended(process.returncode, out.decode(), err.decode())


async def test_generate_prints_the_answer_alone() -> None:
    async with serving(Peer()) as peer:
        done = await polyroute("generate", "What is the capital of France?", peer=peer)
    assert (done.code, done.out, done.err) == (0, "Paris.\n", "")
    (request,) = peer.requests("StreamGenerate")
    (message,) = request.messages.messages
    assert (message.role, message.content) == ("user", "What is the capital of France?")


async def test_verbose_says_the_route_on_standard_error() -> None:
    async with serving(Peer()) as peer:
        done = await polyroute("generate", "-v", "x", peer=peer)
    assert done.out == "Paris.\n"
    assert "answered by `demo` (version v1, cache miss)" in done.err
    assert "3 + 2 tokens, ended by stop, request made" in done.err


async def test_every_option_reaches_the_server() -> None:
    options = [
        *("--model", "m", "--system", "Be brief.", "--max-tokens", "4", "--temperature", "0", "--top-p", "0.5"),
        *("--top-k", "3", "--min-p", "0.1", "--seed", "9", "--stop", "a", "--stop", "b", "--user", "u"),
        *("--session", "s", "--variant", "v", "--cache", "ONLY_IF_CACHED", "--timeout", "50", "--no-stream"),
        *("--cache-max-age", "60", "--original-pace"),
    ]
    async with serving(Peer()) as peer:
        done = await polyroute("generate", *options, "x", peer=peer, env={"POLYROUTE_TOKEN": "t"})
        assert (done.code, done.out) == (0, "Paris.\n"), done.err
    ((method, request, metadata, remaining),) = peer.calls
    sent = (request.model, request.max_tokens, request.temperature, request.top_p, request.top_k, request.min_p)
    assert method == "Generate"
    assert sent == ("m", 4, 0.0, 0.5, 3, 0.1)
    assert (request.seed, list(request.stop)) == (9, ["a", "b"])
    assert (request.routing.user, request.routing.session, request.routing.variant) == ("u", "s", "v")
    assert request.cache.mode == inference_pb2.CACHE_MODE_ONLY_IF_CACHED
    assert (request.cache.max_age.seconds, request.cache.original_pace) == (60, True)
    assert [m.role for m in request.messages.messages] == ["system", "user"]
    assert metadata["authorization"] == "Bearer t"
    assert remaining is not None
    assert remaining < 51


async def test_raw_continues_the_prompt_as_it_stands() -> None:
    async with serving(Peer()) as peer:
        await polyroute("generate", "--raw", "Once upon", peer=peer)
    assert peer.requests("StreamGenerate")[0].prompt == "Once upon"


async def test_a_dash_reads_standard_input() -> None:
    async with serving(Peer()) as peer:
        await polyroute("generate", "--raw", "-", peer=peer, stdin="两 lines\n\nof it\n".encode())
        bad = await polyroute("generate", "-", peer=peer, stdin=b"\xff")
    assert [request.prompt for request in peer.requests("StreamGenerate")] == ["两 lines\n\nof it"]
    assert (bad.code, "UTF-8" in bad.err) == (2, True)


async def test_json_prints_the_whole_answer() -> None:
    async with serving(Peer()) as peer:
        done = await polyroute("generate", "--json", "x", peer=peer)
    answer = json.loads(done.out)
    assert (answer["text"], answer["finish_reason"], answer["route"]["cache"]) == ("Paris.", "stop", "miss")


async def test_text_is_written_as_it_is() -> None:
    """No markup is read in it; into a pipe, not even an escape sequence is touched. Other scripts pass."""
    texts = ("[bold]x[/bold] ", "\x1b[31m", "héllo 🦊 世界")
    async with serving(Peer(deltas=texts)) as peer:
        done = await polyroute("generate", "x", peer=peer)
        ascii_only = await polyroute("generate", "x", peer=peer, env={"PYTHONIOENCODING": "ascii"})
    assert done.out == "".join(texts) + "\n"
    assert (ascii_only.code, ascii_only.out.startswith("[bold]x[/bold] ")) == (0, True)


async def test_a_failed_call_is_one_line_and_exit_code_1() -> None:
    unknown = Failure(grpc.StatusCode.NOT_FOUND, "model: no model or route `x`; did you mean `demo`?", "UNKNOWN_MODEL")
    async with serving(Peer(failures=[unknown])) as peer:
        done = await polyroute("generate", "--model", "x", "Hi", peer=peer)
    assert (done.code, done.out) == (1, "")
    assert done.err == "polyroute: UNKNOWN_MODEL: model: no model or route `x`; did you mean `demo`?\n"


async def test_a_failure_in_the_middle_leaves_what_came() -> None:
    died = Failure(grpc.StatusCode.UNAVAILABLE, "the worker died", "WORKER_DIED", retry_after_s=2)
    async with serving(Peer(late_failure=died)) as peer:
        done = await polyroute("generate", "x", peer=peer)
    assert (done.code, done.out) == (1, "Paris.\n")
    assert done.err == "polyroute: WORKER_DIED: the worker died\ntry again in 2 s\n"


async def test_a_model_without_chat_template_gets_a_hint() -> None:
    no_chat = Failure(grpc.StatusCode.INVALID_ARGUMENT, "no template", "UNSUPPORTED_FIELD", field="messages")
    async with serving(Peer(failures=[no_chat])) as peer:
        done = await polyroute("generate", "x", peer=peer)
    assert "--raw" in done.err


async def test_no_server_is_said_with_its_address() -> None:
    async with serving(Peer()) as peer:
        pass
    done = await polyroute("models", peer=peer)
    assert done.code == 1
    assert f"polyroute: UNREACHABLE: {peer.address}: cannot be reached" in done.err
    assert "polyroute serve" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate",),
        ("nope",),
        ("generate", "--nope", "x"),
        ("generate", "--max-tokens", "many", "x"),
        ("generate", "--max-tokens", "99999999999", "x"),
        ("generate", "--seed", "9" * 30, "x"),
        ("generate", "--address", "a b", "x"),
        ("generate", "--address", "host:99999", "x"),
        ("generate", "--timeout", "0", "x"),
        ("generate", "--raw", "--system", "s", "x"),
        ("generate", "--cache", "maybe", "x"),
        ("generate", "--no-tls", "--server-name", "a", "x"),
        ("generate", "--cert-file", __file__, "x"),
        ("generate", "--ca-file", "/nonexistent", "x"),
        ("generate", "--token", "two\nlines", "x"),
        ("generate", b"\xff"),
        ("chat", "--raw"),
        ("rollout", "status"),
    ],
    ids=lambda arguments: " ".join(str(a)[:20] for a in arguments),
)
async def test_wrong_usage_is_exit_code_2(arguments: Sequence[str | bytes]) -> None:
    done = await polyroute(*arguments)
    assert (done.code, done.out) == (2, ""), done.err
    assert "Error: " in done.err


@pytest.mark.parametrize("flags", [[], ["--no-stream"]], ids=["stream", "unary"])
async def test_ctrl_c_cancels_the_call_and_exits_with_130(flags: list[str]) -> None:
    async with serving(Peer(endless=True)) as peer:
        process = await asyncio.create_subprocess_exec(
            POLYROUTE, "generate", *flags, "x", stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environ(peer)
        )
        await asyncio.wait_for(peer.streaming.wait(), LIMIT_S)
        assert process.stdout is not None
        seen = b"" if flags else await asyncio.wait_for(process.stdout.readexactly(len("Paris.")), LIMIT_S)
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(peer.cancelled.wait(), LIMIT_S)
        out, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode == 130
    assert seen + out == (b"" if flags else b"Paris.\n")
    assert b"Traceback" not in err


@pytest.mark.parametrize("command", ["generate x", "generate --json x", "models", "models --help", "--help"])
async def test_a_reader_that_leaves_is_no_error(command: str) -> None:
    async with serving(Peer(deltas=["line\n"] * 100_000)) as peer:
        pipeline = f"{POLYROUTE} {command} | head -n 1; exit ${{PIPESTATUS[0]}}"
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", pipeline, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environ(peer)
        )
        out, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert out.count(b"\n") == 1
    assert err == b""
    assert process.returncode in (0, 141)


async def test_a_reader_that_left_stops_the_answer() -> None:
    async with serving(Peer(deltas=["line\n"] * 50_000, endless=True)) as peer:
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            f"{POLYROUTE} generate x | head -n 1",
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=environ(peer),
        )
        out, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert (out, err) == (b"line\n", b"")


async def test_models_is_a_table_and_json() -> None:
    listed = [
        models_pb2.Model(id="meta-llama/[red]Llama-3.1-8B-Instruct", type=1, version="v" * 60, state=3, in_flight=2),
        models_pb2.Model(id="chat", type=3, state=5, detail="no weights", default=True, queued=4),
    ]
    async with serving(Peer(models=listed)) as peer:
        table = await polyroute("models", peer=peer)
        printed = await polyroute("models", "--json", peer=peer)
    header, first, second = table.out.splitlines()
    assert header.split() == ["id", "type", "version", "state", "in", "flight", "queued"]
    assert first.split() == ["meta-llama/[red]Llama-3.1-8B-Instruct", "local", "v" * 60, "warm", "2", "0"]
    assert second.split() == ["chat", "*", "route", "-", "failed", "0", "4"]
    assert table.err == "chat: no weights\n"
    assert [model["id"] for model in json.loads(printed.out)] == ["meta-llama/[red]Llama-3.1-8B-Instruct", "chat"]


async def test_explain_says_the_plan() -> None:
    async with serving(Peer()) as peer:
        done = await polyroute("explain", "--model", "demo", "--user", "u", "x", peer=peer)
        printed = await polyroute("explain", "--json", "x", peer=peer)
    assert done.out == "demo\n  1. demo (warm)\n  because it is the default\n"
    assert json.loads(printed.out)["attempts"][0]["state"] == "warm"
    assert peer.requests("ExplainRoute")[0].request.routing.user == "u"


@pytest.mark.parametrize(
    ("command", "code", "shown"),
    [
        ("load demo", 0, "demo: warm"),
        ("unload demo --grace 2", 0, "demo: warm"),
        ("reload", 0, "added: new"),
        ("reload --dry-run", 2, "models.yaml:3: models[0].id: is missing"),
        ("config", 0, "# last reload by SIGHUP: models.yaml:3: models[0].id: is missing\nmodels:\n- id: demo"),
        ("config --defaults", 0, "# /etc/models.yaml, "),
        ("cache stats", 0, "/cache"),
        ("cache clear --model demo", 0, "4 answers removed"),
        ("rollout status chat", 0, "chat: old -> new: running, step 1 of 1"),
        ("rollout pause chat --reason r", 0, "running"),
        ("rollout resume chat", 0, "running"),
        ("rollout promote chat", 0, "running"),
        ("rollout rollback chat", 0, "running"),
        ("experiment report chat", 0, "chat: No difference yet."),
    ],
)
async def test_an_operators_command(command: str, code: int, shown: str) -> None:
    async with serving(Peer()) as peer:
        done = await polyroute(*command.split(), peer=peer)
        printed = await polyroute(*command.split(), "--json", peer=peer)
    assert (done.code, printed.code) == (code, code), done.err
    assert shown in done.out
    json.loads(printed.out)


async def test_cache_stats_are_tables_of_tiers_models_and_near_requests() -> None:
    async with serving(Peer()) as peer:
        done = await polyroute("cache", "stats", "--model", "demo", peer=peer)
        await polyroute("cache", "clear", "--key", "0f", peer=peer)
    rows = [line.split() for line in done.out.splitlines()]
    assert ["disk", "4", "100", "B", "200", "B", "0", "0", "0", "/cache"] in rows
    assert ["demo", "2", "(25%)", "6", "0", "0", "0", "1.5", "s"] in rows
    assert ["disk", "3", "2.0", "KiB", "2"] in rows
    assert ["demo", "measure", "0.95", "0", "10", "4", "(40%)", "0", "4", "1", "(25%)", "-", "0"] in rows
    assert peer.requests("GetCacheStats")[0].model == "demo"
    assert peer.requests("InvalidateCache")[0].key == "0f"


async def test_feedback_may_be_below_zero() -> None:
    async with serving(Peer()) as peer:
        done = await polyroute("feedback", "r1", "score", "-1", peer=peer)
        misspelt = await polyroute("feedback", "r1", "score", "1", "--jsn", peer=peer)
    assert (done.code, done.out) == (0, "recorded\n"), done.err
    assert peer.requests("RecordFeedback")[0].number_value == -1
    assert misspelt.code == 2
    assert "--jsn" in misspelt.err


async def test_what_a_server_does_not_have_yet_is_said_in_its_words() -> None:
    later = Failure(grpc.StatusCode.UNIMPLEMENTED, "rollouts come later", "UNIMPLEMENTED")
    async with serving(Peer(failures=[later])) as peer:
        done = await polyroute("rollout", "status", "chat", "--admin-address", peer.address)
    assert (done.code, done.err) == (1, "polyroute: UNIMPLEMENTED: rollouts come later\n")


async def test_an_address_that_a_server_binds_is_called_on_this_machine() -> None:
    async with serving(Peer()) as peer:
        done = await polyroute("generate", "--address", peer.address.replace("127.0.0.1", "0.0.0.0"), "x")
    assert done.out == "Paris.\n"
