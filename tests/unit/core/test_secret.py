"""A secret's file is read whole, or refused by name without a word of what is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyroute.core.secret import MAX_SECRET_BYTES, SecretUnreadable, read_secret


def test_space_around_a_secret_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n sekret \r\n")
    assert read_secret(tmp_path / "key") == "sekret"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file or directory"),
        (b" \n", "is empty"),
        (b"sekr\xff", "is not UTF-8"),
        (b"sekret" * MAX_SECRET_BYTES, f"is larger than {MAX_SECRET_BYTES} bytes"),
    ],
)
def test_a_file_without_a_secret_is_named(tmp_path: Path, content: bytes | None, why: str) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SecretUnreadable) as refused:
        read_secret(file)
    assert str(refused.value) == f"`{file}` {why}"
