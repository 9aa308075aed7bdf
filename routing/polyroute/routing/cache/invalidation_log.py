"""The file that tells every process of a machine what has been invalidated: short records, appended and never changed.

Its beginning says how many records count, and is written after them, so that a process that dies in between has done
nothing. Each record has a check of its own. Who finds anything else than that puts a new file in its place, which
begins now: what was stored before is then out of reach, and nothing that was invalidated comes back.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

CAPACITY: Final = 4096
"""Most records; a file that is full is replaced by one that has the last record of each name."""

_FORGOTTEN: Final = 1024
_LOCK_S: Final = 1.0
_HEAD: Final = struct.Struct("<8sQQ")
_MAGIC: Final = b"PRINVAL1"
_RECORD: Final = struct.Struct("<QQQ32s8s")
_MOVED: Final = 2**64 - 1
_ONES: Final = 2**64 - 1


class Kind(IntEnum):
    """What a record is about: the file's beginning, a model, all models, one answer, or the beginning of a Redis."""

    BEGIN = 1
    MODEL = 2
    ALL = 3
    ENTRY = 4
    SHARED = 5


class Record(NamedTuple):
    """One invalidation. `name` is a model's SHA-256 or an answer's digest, 32 bytes.

    `local` and `shared` are times in microseconds, greater than all before: what was made before them is not found, on
    this machine and in the Redis that machines share. `shared` is 0 for one that has to do with this machine alone.
    """

    kind: Kind
    name: bytes
    local: int
    shared: int


class Damaged(Exception):
    """The file is not as it was written."""


def name_of(model: str) -> bytes:
    """What stands for a model's ID."""
    return hashlib.sha256(model.encode()).digest()


class InvalidationLog:
    """One file, open for reading, which is a matter of microseconds. Raises `Damaged` and `OSError`.

    `make` and `append` block, and use nothing of what is open: they may run in other threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def __repr__(self) -> str:
        return f"<InvalidationLog {self.path} {'open' if self._fd >= 0 else 'not open'}>"

    def make(self, wall: Callable[[], float]) -> None:
        """Puts a file there where there is none, or a damaged one. Blocks for a second at most."""
        with locked(self.path):
            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    _read(fd)
                finally:
                    os.close(fd)
            except (FileNotFoundError, Damaged):
                _replace(self.path, [_beginning(wall())])

    def reopen(self) -> None:
        """Opens the file that is there now."""
        self.close()
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def mark(self) -> bytes:
        """Bytes that change whenever a record is appended, or the file is replaced."""
        return os.pread(self._fd, _HEAD.size, 0)

    def after(self, count: int) -> list[Record]:
        """The records after the first `count`; raises `Damaged` also for a file that has been replaced."""
        return _read(self._fd, count)

    def identity(self) -> tuple[int, int]:
        """What tells the file that is open from one that was put in its place; see `identity_there`."""
        here = os.fstat(self._fd)
        return here.st_dev, here.st_ino

    def identity_there(self) -> tuple[int, int]:
        """The same of the file that the path leads to; zeros where there is none. May block."""
        try:
            there = os.stat(self.path)
        except OSError:
            return 0, 0
        return there.st_dev, there.st_ino

    def close(self) -> None:
        """Closes the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def append(self, kind: Kind, name: bytes, wall: Callable[[], float], shared: int | None = None) -> None:
        """Adds a record and returns once it is on the disk. With `shared`, one that other machines have told of: unless
        the file has it already. Blocks for a second at most, not counting the disk."""
        with locked(self.path):
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                _replace(self.path, [_beginning(wall())])
                fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._add(fd, kind, name, wall(), shared)
            finally:
                os.close(fd)

    def _add(self, fd: int, kind: Kind, name: bytes, now: float, shared: int | None) -> None:
        try:
            records = _read(fd)
        except Damaged:
            records = [_beginning(now)]
            _replace(self.path, [*records, _record(records, kind, name, now, shared)])
            os.pwrite(fd, _head(_MOVED), 0)
            return
        if shared is not None and any(r.kind is kind and r.name == name and r.shared >= shared for r in records):
            return
        record = _record(records, kind, name, now, shared)
        if len(records) < CAPACITY:
            os.pwrite(fd, _packed(record), _HEAD.size + _RECORD.size * len(records))
            os.pwrite(fd, _head(len(records) + 1), 0)
            os.fdatasync(fd)
        else:
            _replace(self.path, [*_last_of_each(records), record])
            os.pwrite(fd, _head(_MOVED), 0)


def _record(records: Iterable[Record], kind: Kind, name: bytes, now: float, shared: int | None) -> Record:
    """The next record: its times are greater than all there are, whatever the clock says."""
    latest = max(max(record.local, record.shared) for record in records)
    local = max(int(now * 1e6), latest + 1)
    return Record(kind, name, local, local if shared is None else shared)


def _beginning(now: float) -> Record:
    return Record(Kind.BEGIN, bytes(32), int(now * 1e6), 0)


def _last_of_each(records: list[Record]) -> list[Record]:
    """What still counts of a full file, within half of its room: where there are more models than that, all answers
    are out of reach from now on."""
    begin, *others = records
    last: dict[tuple[Kind, bytes], Record] = {}
    for record in others:
        last.pop((record.kind, record.name), None)
        last[record.kind, record.name] = record
    kept = [record for record in last.values() if record.kind is not Kind.ENTRY]
    entries = [record for record in last.values() if record.kind is Kind.ENTRY][-_FORGOTTEN:]
    if len(kept) > CAPACITY // 2:
        latest = max(max(record.local, record.shared) for record in records)
        return [begin, Record(Kind.ALL, bytes(32), latest + 1, latest + 1)]
    return [begin, *sorted((*kept, *entries), key=lambda record: record.local)]


def _read(fd: int, skip: int = 0) -> list[Record]:
    magic, count, inverted = _HEAD.unpack(_exactly(fd, _HEAD.size, 0))
    if magic != _MAGIC or count ^ inverted != _ONES or not max(1, skip) <= count <= CAPACITY:
        raise Damaged("the beginning makes no sense")
    raw = _exactly(fd, (count - skip) * _RECORD.size, _HEAD.size + skip * _RECORD.size)
    return [_unpacked(raw[at : at + _RECORD.size]) for at in range(0, len(raw), _RECORD.size)]


def _exactly(fd: int, size: int, at: int) -> bytes:
    raw = os.pread(fd, size, at)
    if len(raw) != size:
        raise Damaged("is shorter than it should be")
    return raw


def _packed(record: Record) -> bytes:
    body = _RECORD.pack(record.kind, record.local, record.shared, record.name, bytes(8))[:-8]
    return body + hashlib.blake2b(body, digest_size=8).digest()


def _unpacked(raw: bytes) -> Record:
    kind, local, shared, name, check = _RECORD.unpack(raw)
    if check != hashlib.blake2b(raw[:-8], digest_size=8).digest():
        raise Damaged("a record is not as it was written")
    try:
        return Record(Kind(kind), name, local, shared)
    except ValueError as error:
        raise Damaged(str(error)) from error


def _head(count: int) -> bytes:
    return _HEAD.pack(_MAGIC, count, count ^ _ONES)


def _replace(path: Path, records: list[Record]) -> None:
    """Puts a new file in the place of whatever is there, all its room taken already: a full disk stops no append."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(fd, "wb") as file:
            os.posix_fallocate(fd, 0, _HEAD.size + CAPACITY * _RECORD.size)
            file.write(_head(len(records)) + b"".join(map(_packed, records)))
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among all processes; raises `TimeoutError` where another one stops in here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "ab") as file:
        until = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"{file.name} is locked by another process") from None
                time.sleep(0.005)
        yield
