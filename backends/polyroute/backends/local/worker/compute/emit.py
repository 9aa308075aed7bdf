"""Writes functions in LLVM's textual intermediate representation: names, loops and the arithmetic of vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Loop:
    """A counted loop under construction: `index` and `carried` are its values within an iteration.

    Set `next` to what each carried value becomes; after the loop `carried` holds the final ones.
    """

    def __init__(self, index: str, carried: list[str]) -> None:
        self.index = index
        self.carried = carried
        self.next: Sequence[str] = ()


class Function:
    """One function, written from top to bottom; values are in static single assignment form (LLVM LangRef)."""

    def __init__(self, head: str, width: int) -> None:
        """`head` is all before the brace; `width` is how many float32 lie in a vector."""
        self.vector = f"<{width} x float>"
        self.integers = f"<{width} x i32>"
        self.width = width
        self._lines = [f"{head} {{", "entry:"]
        self._block = "entry"
        self._count = 0

    def text(self) -> str:
        return "\n".join([*self._lines, "}", ""])

    def do(self, line: str) -> None:
        self._lines.append(f"  {line}")

    def let(self, expression: str) -> str:
        """The name of a new value."""
        name = self._name("%v")
        self.do(f"{name} = {expression}")
        return name

    def block(self, label: str) -> None:
        """Begins a block; the one before must have ended in a branch."""
        self._lines.append(f"{label}:")
        self._block = label

    def label(self, stem: str) -> str:
        return self._name(stem)

    @contextmanager
    def loop(self, start: str, stop: str, step: int | str, carried: Sequence[tuple[str, str]] = ()) -> Iterator[Loop]:
        """Runs the body for `start`, `start + step`... below `stop`; `carried` are pairs of type and first value."""
        head, body, latch, end = (self.label(stem) for stem in ("head", "body", "latch", "end"))
        before = self._block
        self.do(f"br label %{head}")
        self.block(head)
        index, after = self._name("%i"), self._name("%i")
        self.do(f"{index} = phi i64 [ {start}, %{before} ], [ {after}, %{latch} ]")
        names = [self._name("%c") for _ in carried]
        place = len(self._lines)
        self._lines += [""] * len(carried)
        more = self.let(f"icmp slt i64 {index}, {stop}")
        self.do(f"br i1 {more}, label %{body}, label %{end}")
        self.block(body)
        loop = Loop(index, names)
        yield loop
        self.do(f"br label %{latch}")
        self.block(latch)
        self.do(f"{after} = add nsw i64 {index}, {step}")
        self.do(f"br label %{head}")
        for i, ((kind, first), name, then) in enumerate(zip(carried, names, loop.next, strict=True)):
            self._lines[place + i] = f"  {name} = phi {kind} [ {first}, %{before} ], [ {then}, %{latch} ]"
        self.block(end)

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """Runs the body where `condition`, an i1, holds; values from within are not seen after it."""
        then, end = self.label("then"), self.label("end")
        self.do(f"br i1 {condition}, label %{then}, label %{end}")
        self.block(then)
        yield
        self.do(f"br label %{end}")
        self.block(end)

    def add(self, a: str, b: str) -> str:
        return self.let(f"add nsw i64 {a}, {b}")

    def mul(self, a: str, b: str) -> str:
        return self.let(f"mul nsw i64 {a}, {b}")

    def at(self, base: str, index: str, kind: str) -> str:
        """The address of element `index` of an array of `kind`."""
        return self.let(f"getelementptr {kind}, ptr {base}, i64 {index}")

    def load(self, kind: str, address: str, align: int = 1) -> str:
        return self.let(f"load {kind}, ptr {address}, align {align}")

    def store(self, kind: str, value: str, address: str, align: int = 4) -> None:
        self.do(f"store {kind} {value}, ptr {address}, align {align}")

    def vectors(self, address: str, count: int) -> list[str]:
        """`count` vectors of float32 that lie one after the other."""
        places = [self.at(address, str(i * self.width), "float") for i in range(count)]
        return [self.load(self.vector, place, 4) for place in places]

    def smaller(self, a: str, b: str) -> str:
        return self.let(f"select i1 {self.let(f'icmp slt i64 {a}, {b}')}, i64 {a}, i64 {b}")

    def splat(self, scalar: str, kind: str = "float") -> str:
        one = self.let(f"insertelement <{self.width} x {kind}> poison, {kind} {scalar}, i64 0")
        return self.let(
            f"shufflevector <{self.width} x {kind}> {one}, <{self.width} x {kind}> poison, "
            f"<{self.width} x i32> zeroinitializer"
        )

    def fma(self, a: str, b: str, c: str) -> str:
        kind = self.vector
        return self.let(f"call {kind} @llvm.fma.v{self.width}f32({kind} {a}, {kind} {b}, {kind} {c})")

    def constant(self, value: int) -> str:
        """A vector of integers that are all `value`."""
        return f"<{', '.join([f'i32 {value}'] * self.width)}>"

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"
