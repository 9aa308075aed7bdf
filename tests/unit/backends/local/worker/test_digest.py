"""A version names the content of a model's files, and nothing else of the folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from polyroute.backends.local.worker.digest import file_digest, folder_version


def test_a_folders_version_follows_its_model_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = folder_version(tmp_path)
    assert len(first) == 12
    (tmp_path / "README.md").write_text("no part of the model")
    assert folder_version(tmp_path) == first
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    second = folder_version(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weightz")
    assert len({first, second, folder_version(tmp_path)}) == 3


def test_a_files_digest_is_its_sha256_and_tells_its_progress(tmp_path: Path) -> None:
    content, seen = bytes(3 << 20), list[tuple[int, int]]()
    (tmp_path / "file").write_bytes(content)
    digest = file_digest(tmp_path / "file", lambda done, total: seen.append((done, total)))
    assert digest == hashlib.sha256(content).hexdigest()
    assert seen == [(n << 20, 3 << 20) for n in (1, 2, 3)]
