"""Attention of one new token each of several sequences over their slots of keys and values, in LLVM's language.

The keys and values pass by once, in blocks, with a running maximum and sum (Milakov and Gimelshein, "Online normalizer
calculation for softmax", 2018; FlashAttention, Dao et al., 2022), for all query heads that share them.
"""

from __future__ import annotations

import struct
from typing import Final

from polyroute.backends.local.worker.compute.emit import Function
from polyroute.backends.local.worker.compute.jit import Processor
from polyroute.backends.local.worker.compute.parallel import entry, shares

INTEGERS: Final = (
    *("q", "q_head", "q_token", "k", "k_head", "k_token", "v", "v_head", "v_token"),
    *("keys", "values", "slots", "past", "sinks", "out"),
    *("heads", "capacity", "window"),
)
"""What describes a call: int64, addresses among them, in this order; then the doubles of `DOUBLES`.

q, k and v are float32, their strides in elements (the last is 1). `slots` and `past` are int64, one a sequence; keys
[slots, heads, key width, capacity] and values [slots, heads, capacity, value width], of the stored kind, take in k and
v at `past`.
`out` is [sequences, query heads, value width], contiguous. `window` is how many positions a token sees, with itself.
`sinks` is an address of a score for each query head, or 0."""

DOUBLES: Final = ("scaling", "softcap")
"""`softcap` is 0 for none."""

_ADDRESSES: Final = frozenset(("q", "k", "v", "keys", "values", "slots", "past", "sinks", "out"))
_CALL: Final = ("ptr call", "i64 tasks", "i64 threads")
_BLOCK: Final = 256  # positions at a time: their scores stay in the first-level cache
_TOGETHER: Final = 4  # query heads whose sums are in registers at a time


def float_constant(value: float) -> str:
    """A float constant, exact: LLVM wants the bits of the double that is equal to it."""
    rounded = struct.unpack("f", struct.pack("f", value))[0]
    return f"0x{struct.unpack('Q', struct.pack('d', rounded))[0]:016X}"


_NOTHING: Final = float_constant(-1e30)  # the score of a position that is not seen


def source(
    processor: Processor, groups: int, key_width: int, value_width: int, stored: str, parallel: int | None
) -> str:
    """A module that exports `attend(call, tasks, threads)`, and `share`, what each of its threads runs.

    `groups` query heads share a KV head; keys and values are `stored` as float or bfloat (LLVM's names). `call` is an
    array as `INTEGERS` says; a task is one KV head of one sequence. `value_width` must be a multiple of the vector
    width, `capacity` of twice that.
    """
    width = processor.width
    vector = f"<{width} x float>"
    declarations = [
        f"declare {vector} @llvm.fma.v{width}f32({vector}, {vector}, {vector})",
        f"declare {vector} @llvm.floor.v{width}f32({vector})",
        f"declare {vector} @llvm.maxnum.v{width}f32({vector}, {vector})",
        f"declare float @llvm.vector.reduce.fmax.v{width}f32({vector})",
        f"declare float @llvm.vector.reduce.fadd.v{width}f32(float, {vector})",
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
        "",
    ]
    parts = ["\n".join(declarations), exp_function(width), _task(width, groups, key_width, value_width, stored)]
    return "\n".join([*parts, _share(), entry("attend", "share", _CALL, parallel)])


def exp_function(width: int) -> str:
    """e to the power of each number, none of which is above 0 by more than rounding (Cephes, `expf`)."""
    f = Function(f"define internal <{width} x float> @exp(<{width} x float> %x) alwaysinline", width)

    def number(value: float) -> str:
        return f.splat(float_constant(value))

    kind = f.vector
    x = f.let(f"call {kind} @llvm.maxnum.v{width}f32({kind} %x, {kind} {number(-87.0)})")
    scaled = f.fma(x, number(1.44269504088896341), number(0.5))
    n = f.let(f"call {kind} @llvm.floor.v{width}f32({kind} {scaled})")
    r = f.fma(n, number(-0.693359375), x)
    r = f.fma(n, number(2.12194440e-4), r)
    p = number(1.9875691500e-4)
    for term in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = f.fma(p, r, number(term))
    squared = f.let(f"fmul {kind} {r}, {r}")
    p = f.fma(p, squared, f.let(f"fadd {kind} {r}, {number(1.0)}"))
    power = f.let(f"fptosi {kind} {n} to {f.integers}")
    power = f.let(f"add {f.integers} {power}, {f.constant(127)}")
    power = f.let(f"shl {f.integers} {power}, {f.constant(23)}")
    power = f.let(f"bitcast {f.integers} {power} to {kind}")
    value = f.let(f"fmul {kind} {p}, {power}")
    tiny = f.let(f"fcmp ole {kind} %x, {number(-87.0)}")
    f.do(f"ret {kind} {f.let(f'select <{width} x i1> {tiny}, {kind} zeroinitializer, {kind} {value}')}")
    return f.text()


def _task(width: int, groups: int, key_width: int, value_width: int, stored: str) -> str:
    """One KV head of one sequence."""
    f = Function("define internal void @task(ptr %arguments, i64 %i, i64 %head) noinline", width)
    a = _arguments(f)
    kind, unit = f.vector, 2 * width
    asked = f.let(f"alloca [{groups * key_width} x float], align 64")
    scores = f.let(f"alloca [{groups * _BLOCK} x float], align 64")
    sums = f.let(f"alloca [{groups * value_width} x float], align 64")
    most = f.let(f"alloca [{groups} x float], align 64")
    totals = f.let(f"alloca [{groups} x float], align 64")

    slot = f.load("i64", f.at(a["slots"], "%i", "i64"), 8)
    past = f.load("i64", f.at(a["past"], "%i", "i64"), 8)
    place = f.add(f.mul(slot, a["heads"]), "%head")
    keys = f.at(a["keys"], f.mul(f.mul(place, str(key_width)), a["capacity"]), stored)
    values = f.at(a["values"], f.mul(f.mul(place, str(value_width)), a["capacity"]), stored)
    _take_in(f, a, keys, values, past, key_width, value_width, stored)

    length = f.add(past, "1")
    hidden = f.let(f"sub nsw i64 {length}, {a['window']}")
    first = f.let(f"select i1 {f.let(f'icmp slt i64 {hidden}, 0')}, i64 0, i64 {hidden}")
    start = f.let(f"and i64 {first}, {-unit}")
    query_head = f.mul("%head", str(groups))
    scaling = f.let(f"fptrunc double {a['scaling']} to float")
    with f.loop("0", str(groups), 1) as r:
        q = f.at(a["q"], f.mul(f.add(query_head, r.index), a["q_head"]), "float")
        q = f.at(q, f.mul("%i", a["q_token"]), "float")
        to = f.at(asked, f.mul(r.index, str(key_width)), "float")
        with f.loop("0", str(key_width), 1) as d:
            scaled = f.let(f"fmul float {f.load('float', f.at(q, d.index, 'float'), 4)}, {scaling}")
            f.store("float", scaled, f.at(to, d.index, "float"))
        with f.loop("0", str(value_width), width) as d:
            f.store(kind, "zeroinitializer", f.at(sums, f.add(f.mul(r.index, str(value_width)), d.index), "float"))
        f.store("float", _NOTHING, f.at(most, r.index, "float"))
        f.store("float", "0.0", f.at(totals, r.index, "float"))
        with f.when(f.let(f"icmp ne ptr {a['sinks']}, null")):
            sink = f.load("float", f.at(a["sinks"], f.add(query_head, r.index), "float"), 4)
            f.store("float", sink, f.at(most, r.index, "float"))
            f.store("float", "1.0", f.at(totals, r.index, "float"))

    with f.loop(start, length, _BLOCK) as block:
        count = f.smaller(str(_BLOCK), f.let(f"sub nsw i64 {length}, {block.index}"))
        rounded = f.let(f"and i64 {f.add(count, str(unit - 1))}, {-unit}")
        before = f.let(f"sub nsw i64 {first}, {block.index}")
        begin = f.let(f"select i1 {f.let(f'icmp slt i64 {before}, 0')}, i64 0, i64 {before}")
        here = f.at(keys, block.index, stored)
        with f.loop("0", rounded, unit) as p:
            for at in range(0, groups, _TOGETHER):
                _score(f, a, at, min(_TOGETHER, groups - at), asked, f.at(here, p.index, stored), scores, p.index,
                       key_width, stored)  # fmt: skip
        with f.loop("0", str(groups), 1) as r:
            row = f.at(scores, f.mul(r.index, str(_BLOCK)), "float")
            for low, high in (("0", begin), (count, rounded)):
                with f.loop(low, high, 1) as p:
                    f.store("float", _NOTHING, f.at(row, p.index, "float"))
            mine = f.at(sums, f.mul(r.index, str(value_width)), "float")
            _normalise(f, row, rounded, f.at(most, r.index, "float"), f.at(totals, r.index, "float"), mine,
                       value_width)  # fmt: skip
        seen = f.at(values, f.mul(block.index, str(value_width)), stored)
        following = f.mul(a["capacity"], str(value_width))
        for at in range(0, groups, _TOGETHER):
            _gather(
                f, at, min(_TOGETHER, groups - at), scores, seen, begin, count, sums, value_width, stored, following
            )

    out = f.at(a["out"], f.mul(f.mul("%i", a["heads"]), str(groups * value_width)), "float")
    out = f.at(out, f.mul(query_head, str(value_width)), "float")
    with f.loop("0", str(groups), 1) as r:
        share = f.let(f"fdiv float 1.0, {f.load('float', f.at(totals, r.index, 'float'), 4)}")
        share = f.splat(share)
        with f.loop("0", str(value_width), width) as d:
            place = f.add(f.mul(r.index, str(value_width)), d.index)
            value = f.load(kind, f.at(sums, place, "float"), 4)
            f.store(kind, f.let(f"fmul {kind} {value}, {share}"), f.at(out, place, "float"))
    f.do("ret void")
    return f.text()


def _take_in(
    f: Function, a: dict[str, str], keys: str, values: str, past: str, key_width: int, value_width: int, stored: str
) -> None:
    """Writes the token's own key and value into the slot."""
    for name, to, size in (("k", keys, key_width), ("v", values, value_width)):
        own = f.at(a[name], f.add(f.mul("%head", a[f"{name}_head"]), f.mul("%i", a[f"{name}_token"])), "float")
        with f.loop("0", str(size), 1) as d:
            number = f.load("float", f.at(own, d.index, "float"), 4)
            if name == "k":
                place = f.add(f.mul(d.index, a["capacity"]), past)
            else:
                place = f.add(f.mul(past, str(value_width)), d.index)
            if stored != "float":
                number = f.let(f"fptrunc float {number} to {stored}")
            f.store(stored, number, f.at(to, place, stored), 2)


def _stored(f: Function, address: str, count: int, stored: str) -> list[str]:
    """`count` vectors of numbers of the stored kind that lie one after the other, as float32."""
    if stored == "float":
        return f.vectors(address, count)
    vectors = []
    for i in range(count):
        halves = f.load(f"<{f.width} x i16>", f.at(address, str(i * f.width), stored), 2)
        bits = f.let(f"shl {f.integers} {f.let(f'zext <{f.width} x i16> {halves} to {f.integers}')}, {f.constant(16)}")
        vectors.append(f.let(f"bitcast {f.integers} {bits} to {f.vector}"))
    return vectors


def _fetch(f: Function, address: str) -> None:
    """Has what the next KV head needs come out of memory meanwhile: it lies a slot's length behind what this one reads.

    Keys are read across, one line of the cache here and one there, which no processor foresees by itself.
    """
    f.do(f"call void @llvm.prefetch.p0(ptr {address}, i32 0, i32 3, i32 1)")


def _score(
    f: Function, a: dict[str, str], at: int, rows: int, asked: str, keys: str, scores: str, place: str, key_width: int,
    stored: str,
) -> None:  # fmt: skip
    """Scores of query heads `at` to `at + rows` for two vectors of positions, whose keys begin at `keys`."""
    kind, width = f.vector, f.width
    with f.loop("0", str(key_width), 1, [(kind, "zeroinitializer")] * (2 * rows)) as d:
        here = f.at(keys, f.mul(d.index, a["capacity"]), stored)
        if at == 0:
            _fetch(f, f.at(here, f.mul(a["capacity"], str(key_width)), stored))
        pair = _stored(f, here, 2, stored)
        after = []
        for r in range(rows):
            q = f.splat(f.load("float", f.at(asked, f.add(d.index, str((at + r) * key_width)), "float"), 4))
            after += [f.fma(q, pair[half], d.carried[2 * r + half]) for half in range(2)]
        d.next = after
    for i, value in enumerate(d.carried):
        to = f.at(scores, f.add(place, str((at + i // 2) * _BLOCK + i % 2 * width)), "float")
        f.store(kind, value, to)
    with f.when(f.let(f"fcmp one double {a['softcap']}, 0.0")):
        cap = f.let(f"fptrunc double {a['softcap']} to float")
        cap, inverse = f.splat(cap), f.splat(f.let(f"fdiv float -2.0, {cap}"))
        one = f.splat(float_constant(1.0))
        for i, value in enumerate(d.carried):
            to = f.at(scores, f.add(place, str((at + i // 2) * _BLOCK + i % 2 * width)), "float")
            # tanh(|x|) = (1 - e) / (1 + e) with e = exp(-2 |x|); the sign comes back at the end
            size = f.let(
                f"and {f.integers} {f.let(f'bitcast {kind} {value} to {f.integers}')}, {f.constant(0x7FFFFFFF)}"
            )
            size = f.let(f"bitcast {f.integers} {size} to {kind}")
            e = f.let(f"call {kind} @exp({kind} {f.let(f'fmul {kind} {size}, {inverse}')})")
            tanh = f.let(f"fdiv {kind} {f.let(f'fsub {kind} {one}, {e}')}, {f.let(f'fadd {kind} {one}, {e}')}")
            capped = f.let(f"fmul {kind} {tanh}, {cap}")
            negative = f.let(f"fcmp olt {kind} {value}, zeroinitializer")
            turned = f.let(f"fneg {kind} {capped}")
            f.store(kind, f.let(f"select <{width} x i1> {negative}, {kind} {turned}, {kind} {capped}"), to)


def _normalise(f: Function, row: str, count: str, most: str, total: str, sums: str, value_width: int) -> None:
    """Turns a block's scores into weights relative to the highest so far, and what was summed before likewise."""
    kind, width = f.vector, f.width
    with f.loop("0", count, width, [(kind, f.splat(_NOTHING))]) as p:
        value = f.load(kind, f.at(row, p.index, "float"), 4)
        p.next = [f.let(f"call {kind} @llvm.maxnum.v{width}f32({kind} {p.carried[0]}, {kind} {value})")]
    highest = f.let(f"call float @llvm.vector.reduce.fmax.v{width}f32({kind} {p.carried[0]})")
    old = f.load("float", most, 4)
    new = f.let(f"select i1 {f.let(f'fcmp ogt float {highest}, {old}')}, float {highest}, float {old}")
    f.store("float", new, most)
    fade = f.let(f"call {kind} @exp({kind} {f.splat(f.let(f'fsub float {old}, {new}'))})")
    relative = f.splat(new)
    with f.loop("0", count, width, [(kind, "zeroinitializer")]) as p:
        at = f.at(row, p.index, "float")
        weight = f.let(f"call {kind} @exp({kind} {f.let(f'fsub {kind} {f.load(kind, at, 4)}, {relative}')})")
        f.store(kind, weight, at)
        p.next = [f.let(f"fadd {kind} {p.carried[0]}, {weight}")]
    added = f.let(f"call reassoc float @llvm.vector.reduce.fadd.v{width}f32(float 0.0, {kind} {p.carried[0]})")
    faded = f.let(f"fmul float {f.load('float', total, 4)}, {f.let(f'extractelement {kind} {fade}, i64 0')}")
    f.store("float", f.let(f"fadd float {faded}, {added}"), total)
    with f.loop("0", str(value_width), width) as d:
        at = f.at(sums, d.index, "float")
        f.store(kind, f.let(f"fmul {kind} {f.load(kind, at, 4)}, {fade}"), at)


def _gather(
    f: Function, at: int, rows: int, scores: str, values: str, begin: str, count: str, sums: str, value_width: int,
    stored: str, following: str,
) -> None:  # fmt: skip
    """Adds the block's values to the sums of query heads `at` to `at + rows`, each by its weight.

    The next KV head's values are `following` numbers behind these.
    """
    kind, width = f.vector, f.width
    for chunk, vectors in _chunks(value_width // width):
        places = [f.at(sums, str((at + r) * value_width + chunk * width), "float") for r in range(rows)]
        before = [value for place in places for value in f.vectors(place, vectors)]
        with f.loop(begin, count, 1, [(kind, value) for value in before]) as p:
            here = f.at(values, f.add(f.mul(p.index, str(value_width)), str(chunk * width)), stored)
            if at == 0:
                _fetch(f, f.at(here, following, stored))
            seen = _stored(f, here, vectors, stored)
            after = []
            for r in range(rows):
                weight = f.splat(f.load("float", f.at(scores, f.add(p.index, str((at + r) * _BLOCK)), "float"), 4))
                after += [f.fma(weight, seen[i], p.carried[r * vectors + i]) for i in range(vectors)]
            p.next = after
        for i, value in enumerate(p.carried):
            f.store(kind, value, f.at(places[i // vectors], str(i % vectors * width), "float"))


def _chunks(vectors: int) -> list[tuple[int, int]]:
    """Cuts a row of vectors into pieces of two, the last perhaps of one: where each begins, and its size."""
    return [(at, min(2, vectors - at)) for at in range(0, vectors, 2)]


def _arguments(f: Function) -> dict[str, str]:
    a = {}
    for i, name in enumerate(INTEGERS):
        a[name] = f.load("ptr" if name in _ADDRESSES else "i64", f.at("%arguments", str(i), "i64"), 8)
    for i, name in enumerate(DOUBLES, len(INTEGERS)):
        a[name] = f.load("double", f.at("%arguments", str(i), "i64"), 8)
    return a


def _share() -> str:
    """What each thread runs: a task is one KV head of one sequence."""
    f = Function("define void @share(ptr %arguments)", 1)
    with shares(f, _CALL, "tasks") as (a, task):
        heads = f.load("i64", f.at(a["call"], str(INTEGERS.index("heads")), "i64"), 8)
        i, head = f.let(f"sdiv i64 {task}, {heads}"), f.let(f"srem i64 {task}, {heads}")
        f.do(f"call void @task(ptr {a['call']}, i64 {i}, i64 {head})")
    return f.text()
