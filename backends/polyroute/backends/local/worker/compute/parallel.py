"""How kernels share their work among threads: each takes a part, and another when it is done, until none is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from polyroute.backends.local.worker.compute.emit import Function

_SHARES = 4  # how often a thread comes for more: another may have been held up by the system


@contextmanager
def shares(f: Function, arguments: Sequence[str], items: str) -> Iterator[tuple[dict[str, str], str]]:
    """Writes the body of a function of `(ptr %arguments)`, as `entry` calls it, for one item.

    `arguments` are "type name"; `items` names the one that tells how many items there are, and one is called threads.
    Yields the arguments' values and the item's index.
    """
    a = {}
    for i, argument in enumerate(arguments):
        kind, name = argument.split()
        a[name] = f.load(kind, f.at("%arguments", str(i), "i64"), 8)
    counter = f.at("%arguments", str(len(arguments)), "i64")
    part = f.let(f"sdiv i64 {a[items]}, {f.mul(a['threads'], str(_SHARES))}")
    chunk = f.let(f"select i1 {f.let(f'icmp slt i64 {part}, 1')}, i64 1, i64 {part}")
    take, taken, over = f.label("take"), f.label("taken"), f.label("over")
    f.do(f"br label %{take}")
    f.block(take)
    begin = f.let(f"atomicrmw add ptr {counter}, i64 {chunk} monotonic")
    f.do(f"br i1 {f.let(f'icmp slt i64 {begin}, {a[items]}')}, label %{taken}, label %{over}")
    f.block(taken)
    with f.loop(begin, f.smaller(a[items], f.add(begin, chunk)), 1) as item:
        yield a, item.index
    f.do(f"br label %{take}")
    f.block(over)
    f.do("ret void")


def entry(name: str, share: str, arguments: Sequence[str], parallel: int | None) -> str:
    """An exported function of `arguments` that has `@share` run by as many threads as the one called threads says.

    `parallel` is the address of GOMP_parallel; where it is None, the caller's thread does everything.
    """
    pairs = [argument.split() for argument in arguments]
    f = Function(f"define void @{name}({', '.join(f'{kind} %{value}' for kind, value in pairs)})", 1)
    room = f.let(f"alloca [{len(pairs) + 1} x i64], align 64")
    for i, (kind, value) in enumerate(pairs):
        f.store(kind, f"%{value}", f.at(room, str(i), "i64"), 8)
    f.store("i64", "0", f.at(room, str(len(pairs)), "i64"), 8)
    if parallel is not None:
        alone, together = f.label("alone"), f.label("together")
        f.do(f"br i1 {f.let('icmp slt i64 %threads, 2')}, label %{alone}, label %{together}")
        f.block(together)
        address = f.let(f"inttoptr i64 {parallel} to ptr")
        threads = f.let("trunc i64 %threads to i32")
        f.do(f"call void {address}(ptr @{share}, ptr {room}, i32 {threads}, i32 0)")
        f.do("ret void")
        f.block(alone)
    f.do(f"call void @{share}(ptr {room})")
    f.do("ret void")
    return f.text()
