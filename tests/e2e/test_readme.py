"""Everything that the README shows is run as it stands, against a server that was started as it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.e2e.running import BIN, ROOT, Running, run, serving

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
SHELL = [body for language, body in BLOCKS if language == "bash"]

# What a test must not run as it stands, and where it is run instead.
ELSEWHERE = {
    "make run": "what it starts is the server of these tests",
    "make test": "runs these tests",
    "MODEL_ID=meta-llama/Llama-3.2-1B-Instruct": "test_a_model_by_environment",
    ".venv/bin/polyroute serve --config models.yaml": "test_models_by_a_file",
}


def commands() -> list[str]:
    lines = [line for body in SHELL for line in body.replace("\\\n", " ").splitlines() if line.strip()]
    return [line for line in lines if not any(line.startswith(prefix) for prefix in ELSEWHERE)]


def here(text: str, demo: Running) -> str:
    """`text` with the README's addresses and paths replaced by those of this run."""
    text = text.replace("127.0.0.1:50051", demo.grpc).replace("127.0.0.1:8080", demo.http)
    return text.replace(".venv/bin/", f"{BIN}/")


def test_the_readme_has_its_commands() -> None:
    assert len(commands()) >= 6
    for prefix in ELSEWHERE:
        assert any(line.startswith(prefix) for body in SHELL for line in body.splitlines()), prefix


@pytest.mark.demo
@pytest.mark.parametrize("command", commands(), ids=lambda c: " ".join(c.split()[:2]).replace("/", "_"))
def test_a_command_answers(command: str, demo: Running) -> None:
    environ = {"POLYROUTE_GRPC_ADDRESS": demo.grpc, "POLYROUTE_ADMIN_ADDRESS": demo.admin}
    done = run(["bash", "-c", here(command, demo)], environ=environ)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stdout
    if "capital of France" in command:
        assert "Paris" in done.stdout


@pytest.mark.demo
def test_the_python_example_runs(demo: Running, tmp_path: Path) -> None:
    (example,) = [body for language, body in BLOCKS if language == "python"]
    script = tmp_path / "example.py"
    script.write_text(here(example, demo))
    done = run([str(BIN / "python"), str(script)])
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert "demo" in done.stdout


@pytest.mark.demo
def test_the_answer_shown_is_the_answer_given(demo: Running) -> None:
    (shown,) = [body for language, body in BLOCKS if language == "jsonc"]
    done = run(["bash", "-c", here(commands()[0], demo)])
    for key in re.findall(r'"(\w+)":', shown):
        assert f'"{key}"' in done.stdout, key
    text = re.search(r'"text": ".*?"', shown)
    assert text is not None
    assert text[0] in done.stdout


def test_a_model_by_environment(tmp_path: Path) -> None:
    """With no hub to be reached, the server is up, not ready, and says in one error what to do."""
    (line,) = [line for body in SHELL for line in body.splitlines() if line.startswith("MODEL_ID=meta-llama")]
    environ = dict(word.split("=", 1) for word in shlex.split(line) if "=" in word)
    environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    with serving(tmp_path, environ=environ) as server:
        server.wait(lambda: server.get("/healthz")[0] == 200, "it was alive")
        server.wait(lambda: "HF_TOKEN" in server.output(), "it said what to do")
        assert environ["MODEL_ID"] in server.output()
        assert server.get("/readyz")[0] == 503


def test_models_by_a_file(tmp_path: Path) -> None:
    """The file that the README shows passes `polyroute check` and serves."""
    (text,) = [body for language, body in BLOCKS if language == "yaml"]
    path = tmp_path / "models.yaml"
    path.write_text(text)
    checked = run(["polyroute", "check", str(path)])
    assert (checked.returncode, checked.stdout) == (0, "ok: 2 models, 0 routes\n"), checked.stderr
    with serving(tmp_path, "--config", str(path), environ={"HF_HUB_OFFLINE": "1"}) as server:
        server.wait(lambda: server.get("/healthz")[0] == 200, "it was alive")
        models = yaml.safe_load(server.get("/v1/models")[1])
        assert models["default_model"] == "mistralai/Mistral-7B-v0.1"
        assert set(models["models"]) == {"mistralai/Mistral-7B-v0.1", "deepseek-ai/DeepSeek-R1"}


def test_the_example_file_is_valid() -> None:
    checked = run(["polyroute", "check", str(ROOT / "models.example.yaml")])
    assert (checked.returncode, checked.stdout) == (0, "ok: 2 models, 2 routes\n"), checked.stderr


@pytest.mark.parametrize("page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda p: p.name)
def test_flags_in_the_docs_are_real(page: Path) -> None:
    """Each `--flag` of a `polyroute` command that a page shows stands in that command's help."""
    text = page.read_text()
    for command, flags in re.findall(r"polyroute ((?:[a-z]+ ?)+)((?:[^`\n]*--[a-z-]+)*)", text):
        words = command.split()
        for flag in re.findall(r"--[a-z][a-z-]+", flags):
            shown = run(["polyroute", *words[:1], "--help"]).stdout + run(["polyroute", *words, "--help"]).stdout
            assert flag in shown, f"{command}: {flag}"
    if page.name == "configuration.md":
        serve = run(["polyroute", "serve", "--help"]).stdout
        for flag in re.findall(r"\| `(--[a-z-]+)` \|", text):
            assert flag in serve
