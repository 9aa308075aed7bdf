"""The heap is put into huge pages where the system can, and nothing in it changes."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import pytest

from polyroute.server import huge_pages
from polyroute.server.huge_pages import HUGE_BYTES, full, gather

MIB = 1024 * 1024


def mapping(begin: int, size: int, rss: int, *, mode: str = "rw-p", inode: int = 0, name: str = "") -> list[str]:
    """The lines of /proc/PID/smaps for one mapping, as far as they matter."""
    head = f"{begin:08x}-{begin + size:08x} {mode} 00000000 00:00 {inode}".ljust(73)
    return [
        f"{head}{name}",
        f"Size:           {size // 1024:8} kB",
        f"Rss:            {rss // 1024:8} kB",
        "Pss:  1 kB",
    ]


def test_of_a_mapping_that_is_there_it_is_what_huge_pages_fit_into() -> None:
    begin = 10 * HUGE_BYTES + MIB
    assert list(full(mapping(begin, 7 * MIB, 7 * MIB))) == [(11 * HUGE_BYTES, 14 * HUGE_BYTES)]
    assert list(full(mapping(begin, 7 * MIB, 7 * MIB, name="[heap]"))) == [(11 * HUGE_BYTES, 14 * HUGE_BYTES)]


def test_one_that_no_huge_page_fits_into_is_left() -> None:
    assert not list(full(mapping(HUGE_BYTES + MIB, 2 * MIB, 2 * MIB)))


def test_stacks_files_and_code_are_left() -> None:
    whole = 8 * MIB
    left = [
        *mapping(HUGE_BYTES, whole, whole // 2),  # of a thread's stack, or of what was never used, little is there
        *mapping(9 * HUGE_BYTES, whole, whole, name="[stack]"),
        *mapping(19 * HUGE_BYTES, whole, whole, inode=7, name="/lib/libpython.so"),
        *mapping(29 * HUGE_BYTES, whole, whole, mode="r-xp"),
        *mapping(39 * HUGE_BYTES, whole, whole, mode="rw-s"),
    ]
    assert not list(full(left))
    after = mapping(49 * HUGE_BYTES, whole, whole)
    assert list(full([*left, *after])) == [(49 * HUGE_BYTES, 53 * HUGE_BYTES)]


def test_what_is_gathered_is_what_it_was() -> None:
    memory = mmap.mmap(-1, 8 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pattern = bytes(range(256))
    memory.write(pattern * (len(memory) // len(pattern)))
    gather()
    assert memory[:] == pattern * (len(memory) // len(pattern))


def test_a_system_that_has_none_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huge_pages, "_SMAPS", tmp_path / "none")
    gather()


def test_who_wants_no_huge_pages_gets_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read: list[Path] = []
    (tmp_path / "smaps").write_text("")
    monkeypatch.setattr(huge_pages, "_SMAPS", tmp_path / "smaps")
    monkeypatch.setattr(huge_pages, "_ENABLED", tmp_path / "enabled")
    monkeypatch.setattr(huge_pages, "full", lambda smaps: read.append(tmp_path) or [])
    for said, looked in (("always madvise [never]\n", 0), ("always [madvise] never\n", 1)):
        (tmp_path / "enabled").write_text(said)
        gather()
        assert len(read) == looked


@pytest.mark.skipif(sys.platform != "linux", reason="a file's name is text elsewhere")
def test_a_file_whose_name_is_no_text_may_be_in_memory(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9"
    with open(name, "wb+") as file:
        file.write(bytes(mmap.PAGESIZE))
        file.flush()
        with mmap.mmap(file.fileno(), 0):
            gather()


def test_a_python_that_cannot_call_the_system_leaves_it_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was built without libffi has no `ctypes`."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    gather()
