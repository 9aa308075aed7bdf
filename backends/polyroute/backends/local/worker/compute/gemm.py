"""The matrix product at the heart of every linear layer, y = x w' + bias, written in LLVM's language.

A block of a few rows of x by one panel of weights is held in registers while the input channels pass by (Goto and van
de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). Weights are brought to what the arithmetic takes
as they are read: a few rows are then bound by the memory's speed at the weights' own size, and many by the arithmetic.

Every sum is taken in one order, that of the input channels, whatever the number of rows, of threads and the block: a
row's result is the same to the last bit whatever stands beside it.
"""

from __future__ import annotations

from typing import Final

from polyroute.backends.local.worker.compute.arithmetic import SINGLES
from polyroute.backends.local.worker.compute.emit import Function
from polyroute.backends.local.worker.compute.formats import NEVER, Format, plain
from polyroute.backends.local.worker.compute.integers import Integers
from polyroute.backends.local.worker.compute.jit import Processor
from polyroute.backends.local.worker.compute.parallel import entry, shares

WIDE_BLOCK: Final = 256
"""Places of a panel that are widened ahead at once: together with those of x they fit the first-level cache."""

FIXED: Final = ("w", "bias", "outputs", "inputs", "stride", "block", "widen", "row")
"""What describes a layer to the kernel: an array of int64 (addresses among them) in this order.

bias is float32, padded to whole panels; `inputs` counts places (see `arithmetic`); `stride` is the bytes from panel to
panel. `block` places are taken at a time, a multiple of the format's step and group; from `widen` rows on it is
`WIDE_BLOCK` of them, which are widened ahead to what the arithmetic takes. `row` is how many elements of 32 bits a row
of x has: its places, and what else the arithmetic wants to know of it."""

_POINTERS: Final = frozenset(("w", "bias"))
_CALL: Final = ("ptr fixed", "ptr x", "ptr y", "i64 rows", "i64 panels", "i64 threads")
_TILE: Final = "ptr %x, i64 %row, ptr %w, ptr %bias, ptr %y, i64 %outputs, i64 %count, i1 %first, i1 %last"
_UNROLLED: Final = 4


def source(form: Format, processor: Processor, parallel: int | None) -> str:
    """A module that exports `linear(fixed, x, y, rows, panels, threads)`, all int64 or pointers.

    `fixed` is described by `FIXED`; x [rows, row] are places and y [rows, outputs] float32, both contiguous.
    `parallel` is the address of GOMP_parallel, None to run in the caller's thread whatever `threads` says.
    """
    width, most = processor.width, _most_rows(form, processor)
    vector = f"<{width} x float>"
    parts = [f"declare {vector} @llvm.fma.v{width}f32({vector}, {vector}, {vector})\n"]
    if form.arithmetic is not SINGLES:
        parts.append(form.arithmetic.declarations(width))
    widens = form.wide_rows < NEVER
    if widens:
        parts.append(_widen(form, width))
    for rows in range(1, most + 1):
        parts.append(_tile(f"direct{rows}", form, width, rows))
        if widens:
            parts.append(_tile(f"wide{rows}", plain(form.arithmetic), width, rows))
    parts += [_share(form, width, most, widens=widens), entry("linear", "share", _CALL, parallel)]
    return "\n".join(parts)


def _most_rows(form: Format, processor: Processor) -> int:
    """How many rows of two vectors of sums leave registers for weights and x; integers have sums of two kinds."""
    most = {8: 2, 16: 6, 32: 10}[processor.registers]
    return (most + 2) // 2 if isinstance(form, Integers) else most


def _tile(name: str, form: Format, width: int, rows: int) -> str:
    """`rows` rows of x by one panel, over `count` places; the sums go on from y unless `first`."""
    f = Function(f"define internal void @{name}({_TILE}) noinline", width)
    scalar = form.arithmetic.scalar
    starts = [f.at("%x", f.mul(str(r), "%row"), scalar) for r in range(rows)]
    outs = [f.at("%y", f.mul(str(r), "%outputs"), "float") for r in range(rows)]
    fresh, going, begin = f.label("fresh"), f.label("going"), f.label("begin")
    f.do(f"br i1 %first, label %{fresh}, label %{going}")
    f.block(going)
    before = [value for out in outs for value in f.vectors(out, 2)]
    f.do(f"br label %{begin}")
    f.block(fresh)
    f.do(f"br label %{begin}")
    f.block(begin)
    sums = [f.let(f"phi {f.vector} [ zeroinitializer, %{fresh} ], [ {value}, %{going} ]") for value in before]
    if isinstance(form, Integers):
        _finish(f, _groups(f, form, starts, sums), outs)
        return f.text()
    unrolled = max(form.step, _UNROLLED)

    def run(start: str, stop: str, step: int, panel: str, offset: str | None, values: list[str]) -> list[str]:
        with f.loop(start, stop, step, [(f.vector, value) for value in values]) as loop:
            values = list(loop.carried)
            for u in range(0, step, form.step):
                k = f.add(loop.index, str(u))
                places = k if offset is None else f.add(k, offset)
                for i, pair in enumerate(form.read(f, panel, k)):
                    for r in range(rows):
                        x = f.load(scalar, f.at(starts[r], f.add(places, str(i)), scalar), 4)
                        for half in range(2):
                            place = 2 * r + half
                            values[place] = form.arithmetic.term(f, x, pair[half], values[place])
            loop.next = values
        return loop.carried

    values = sums
    if form.group is None:
        whole = f.let(f"and i64 %count, {-unrolled}")
        values = run("0", whole, unrolled, "%w", None, values)
        if unrolled > form.step:
            values = run(whole, "%count", form.step, "%w", None, values)
    else:
        with f.loop("0", "%count", form.group, [(f.vector, value) for value in values]) as groups:
            row = form.row(f, "%w", groups.index)
            groups.next = run("0", str(form.group), unrolled, row, groups.index, list(groups.carried))
        values = groups.carried
    _finish(f, values, outs)
    return f.text()


def _groups(f: Function, form: Integers, starts: list[str], sums: list[str]) -> list[str]:
    """The sums after all groups of x, each of whose products are integers; a row of x has its scales and totals behind
    its places. Such rows are taken whole."""
    count = f.let(f"sdiv i64 %count, {form.group}")
    with f.loop("0", count, 1, [(f.vector, value) for value in sums]) as loop:
        group = f.at("%w", f.mul(loop.index, str(form.group_bytes(f.width))), "i8")
        first = f.mul(loop.index, str(form.group))
        scales = [f.at(start, f.add("%count", loop.index), "i32") for start in starts]
        totals = [f.load("i32", f.at(scale, count, "i32"), 4) for scale in scales]
        found = [value for total in totals for value in [form.start(f, total)] * 2]
        for place, pair in enumerate(form.places(f, group)):
            for r, start in enumerate(starts):
                x = f.load("i32", f.at(start, f.add(first, str(place)), "i32"), 4)
                for half in range(2):
                    found[2 * r + half] = form.arithmetic.term(f, x, pair[half], found[2 * r + half])
        after = list(loop.carried)
        for r, scale in enumerate(scales):
            size = f.splat(f.load("float", scale, 4))
            whole = f.let(f"sitofp i32 {totals[r]} to float")
            for half in range(2):
                value = f.let(f"sitofp {f.integers} {found[2 * r + half]} to {f.vector}")
                value = form.scaled(f, group, half, value, whole)
                after[2 * r + half] = f.fma(value, size, after[2 * r + half])
        loop.next = after
    return loop.carried


def _finish(f: Function, sums: list[str], outs: list[str]) -> None:
    done, part = f.label("done"), f.label("part")
    f.do(f"br i1 %last, label %{done}, label %{part}")
    f.block(part)
    _write(f, sums, outs)
    f.block(done)
    bias = f.vectors("%bias", 2)
    sums = [f.let(f"fadd {f.vector} {value}, {bias[i % 2]}") for i, value in enumerate(sums)]
    _write(f, sums, outs)


def _write(f: Function, sums: list[str], outs: list[str]) -> None:
    for i, value in enumerate(sums):
        f.store(f.vector, value, f.at(outs[i // 2], str(i % 2 * f.width), "float"))
    f.do("ret void")


def _widen(form: Format, width: int) -> str:
    """Writes `count` places of a panel as the arithmetic takes them."""
    f = Function("define internal void @widen(ptr %w, ptr %to, i64 %count) noinline", width)
    kind = form.arithmetic.vector(f)

    def run(start: str, stop: str, panel: str, offset: str | None) -> None:
        with f.loop(start, stop, form.step) as loop:
            place = loop.index if offset is None else f.add(loop.index, offset)
            for i, pair in enumerate(form.read(f, panel, loop.index)):
                to = f.at("%to", f.mul(f.add(place, str(i)), str(2 * width)), "float")
                for half in range(2):
                    f.store(kind, pair[half], f.at(to, str(half * width), "float"))

    if form.group is None:
        run("0", "%count", "%w", None)
    else:
        with f.loop("0", "%count", form.group) as groups:
            run("0", str(form.group), form.row(f, "%w", groups.index), groups.index)
    f.do("ret void")
    return f.text()


def _share(form: Format, width: int, most: int, *, widens: bool) -> str:
    """What each thread runs: it takes panels until none is left."""
    columns, scalar = 2 * width, form.arithmetic.scalar
    f = Function("define void @share(ptr %arguments)", width)
    room = f.let(f"alloca [{columns * most} x float], align 64")
    scratch = f.let(f"alloca [{columns * WIDE_BLOCK if widens else 1} x float], align 64")
    with shares(f, _CALL, "panels") as (a, panel):
        for i, name in enumerate(FIXED):
            a[name] = f.load("ptr" if name in _POINTERS else "i64", f.at(a["fixed"], str(i), "i64"), 8)
        tiles = f.let(f"sdiv i64 {f.add(a['rows'], str(most - 1))}, {most}")
        wide = f.let(f"icmp sge i64 {a['rows']}, {a['widen']}") if widens else "false"
        block = f.let(f"select i1 {wide}, i64 {WIDE_BLOCK}, i64 {a['block']}")
        weights = f.at(a["w"], f.mul(panel, a["stride"]), "i8")
        column = f.mul(panel, str(columns))
        present = f.smaller(str(columns), f.let(f"sub nsw i64 {a['outputs']}, {column}"))
        partial = f.let(f"icmp slt i64 {present}, {columns}")
        bias, y = (f.at(a[name], column, "float") for name in ("bias", "y"))
        with f.loop("0", a["inputs"], block) as part:
            left = f.let(f"sub nsw i64 {a['inputs']}, {part.index}")
            count = f.smaller(block, left)
            first = f.let(f"icmp eq i64 {part.index}, 0")
            last = f.let(f"icmp eq i64 {count}, {left}")
            rest = form.row(f, weights, part.index)
            if widens:
                with f.when(wide):
                    f.do(f"call void @widen(ptr {rest}, ptr {scratch}, i64 {count})")
            source = f.let(f"select i1 {wide}, ptr {scratch}, ptr {rest}")
            with f.loop("0", tiles, 1) as tile:
                row = f.let(f"sdiv i64 {f.mul(tile.index, a['rows'])}, {tiles}")
                end = f.let(f"sdiv i64 {f.mul(f.add(tile.index, '1'), a['rows'])}, {tiles}")
                rows = f.let(f"sub nsw i64 {end}, {row}")
                x = f.at(f.at(a["x"], f.mul(row, a["row"]), scalar), part.index, scalar)
                out = f.at(y, f.mul(row, a["outputs"]), "float")
                with f.when(partial):
                    _copy(f, out, a["outputs"], room, str(columns), rows, present)
                to = f.let(f"select i1 {partial}, ptr {room}, ptr {out}")
                stride = f.let(f"select i1 {partial}, i64 {columns}, i64 {a['outputs']}")
                call = (
                    f"(ptr {x}, i64 {a['row']}, ptr {source}, ptr {bias}, ptr {to}, i64 {stride}, "
                    f"i64 {count}, i1 {first}, i1 {last})"
                )
                _choose(f, wide if widens else None, rows, call, most)
                with f.when(partial):
                    _copy(f, room, str(columns), out, a["outputs"], rows, present)
    return f.text()


def _choose(f: Function, wide: str | None, rows: str, call: str, most: int) -> None:
    """Calls the tile of that many rows, widened ahead where `wide`, an i1, says so."""
    end = f.label("called")
    table = {kind: f.label(kind) for kind in (("direct",) if wide is None else ("wide", "direct"))}
    f.do(
        f"br label %{table['direct']}"
        if wide is None
        else f"br i1 {wide}, label %{table['wide']}, label %{table['direct']}"
    )
    for kind, label in table.items():
        cases = [f.label(f"{kind}.rows") for _ in range(most)]
        f.block(label)
        choices = " ".join(f"i64 {i + 1}, label %{case}" for i, case in enumerate(cases))
        f.do(f"switch i64 {rows}, label %{end} [ {choices} ]")
        for i, case in enumerate(cases):
            f.block(case)
            f.do(f"call void @{kind}{i + 1}{call}")
            f.do(f"br label %{end}")
    f.block(end)


def _copy(f: Function, source: str, step: str, to: str, to_step: str, rows: str, columns: str) -> None:
    with f.loop("0", rows, 1) as row:
        there, here = f.mul(row.index, step), f.mul(row.index, to_step)
        with f.loop("0", columns, 1) as column:
            value = f.load("float", f.at(source, f.add(there, column.index), "float"), 4)
            f.store("float", value, f.at(to, f.add(here, column.index), "float"))
