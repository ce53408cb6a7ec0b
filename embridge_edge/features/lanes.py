"""Eight rows at once: a value of eight numbers inside compiled code, so that no kernel hopes for a compiler's goodwill.

LLVM turns a plain loop into vector instructions only where it can prove that no arrays overlap and that no sum is reordered.
A kernel written with these values needs neither proof: lane l belongs to row l, each row's arithmetic is that of a scalar
loop, and a row has the same bits whichever lane it is in. On hardware with narrower registers LLVM splits the values.

    x = load(array, i)        eight float32 from array[i : i + 8]; store(array, i, x) writes them
    spread(2.0)               the same float32 in each lane; wide(x) makes float64 of each, single(x) float32
    + - * /  < <= >           lane by lane; a comparison gives int32 lanes, −1 where true and 0 where false
    & | ^ << >>               on int32 lanes; >> repeats the sign
    choose(mask, a, b)        a where the mask is true, else b; also for scalars
    bits(x), floats(i)        the same 32 bits as int32, as float32; also for scalars
    least, most, root, magnitude, rounded, item, total

Numbers of Python and scalars mix with float32 and float64 lanes and are spread first.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import types as numba_types
from numba.core.cgutils import get_or_insert_function, unpack_tuple
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_jitable, register_model

WIDTH = 8
"""Lanes in a value: one AVX register of float32, two registers of NEON or SSE."""

_INT32 = ir.IntType(32)
types: Any = numba_types


class _Lanes(numba_types.Type):
    """Numba's type of eight numbers of one kind."""

    def __init__(self, name: str, element: ir.Type, scalar: Any) -> None:
        self.element = element
        self.scalar = scalar
        self.vector = ir.VectorType(element, WIDTH)
        super().__init__(name=name)


float32s = _Lanes("float32s", ir.FloatType(), types.float32)
float64s = _Lanes("float64s", ir.DoubleType(), types.float64)
int32s = _Lanes("int32s", _INT32, types.int32)


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.vector)


def _spread(builder: Any, kind: _Lanes, value: Any) -> Any:
    single = builder.insert_element(ir.Constant(kind.vector, ir.Undefined), value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(
        single, ir.Constant(kind.vector, ir.Undefined), ir.Constant(ir.VectorType(_INT32, WIDTH), [0] * WIDTH)
    )


def _as(context: Any, builder: Any, kind: _Lanes, given: Any, value: Any) -> Any:
    """`value`, spread over the lanes of `kind` where it is a scalar."""
    if isinstance(given, _Lanes):
        return value
    return _spread(builder, kind, context.cast(builder, value, types.unliteral(given), kind.scalar))


def _common(left: Any, right: Any) -> _Lanes | None:
    if isinstance(left, _Lanes) and (left == right or isinstance(right, types.Number)):
        return left
    if isinstance(right, _Lanes) and isinstance(left, types.Number):
        return right
    return None


def _define_operator(symbol: Any, floating: str | None, whole: str | None, compares: bool = False) -> None:
    @infer_global(symbol)
    class _Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) != 2 or (kind := _common(*args)) is None:
                return None
            if (whole if kind == int32s else floating) is None:
                return None
            return signature(int32s if compares else kind, *args)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = _common(*sig.args) or float32s
        left, right = (_as(context, builder, kind, given, value) for given, value in zip(sig.args, args, strict=True))
        name = whole if kind == int32s else floating
        if not compares:
            return getattr(builder, str(name))(left, right)
        compare = builder.icmp_signed if kind == int32s else builder.fcmp_ordered
        return builder.sext(compare(name, left, right), int32s.vector)

    for left, right in ((_Lanes, _Lanes), (_Lanes, types.Number), (types.Number, _Lanes)):
        lower_builtin(symbol, left, right)(lower)


_define_operator(operator.add, "fadd", "add")
_define_operator(operator.sub, "fsub", "sub")
_define_operator(operator.mul, "fmul", "mul")
_define_operator(operator.truediv, "fdiv", None)
_define_operator(operator.and_, None, "and_")
_define_operator(operator.or_, None, "or_")
_define_operator(operator.xor, None, "xor")
_define_operator(operator.lshift, None, "shl")
_define_operator(operator.rshift, None, "ashr")
_define_operator(operator.lt, "<", "<", compares=True)
_define_operator(operator.le, "<=", "<=", compares=True)
_define_operator(operator.gt, ">", ">", compares=True)
_define_operator(operator.iadd, "fadd", "add")
_define_operator(operator.isub, "fsub", "sub")
_define_operator(operator.imul, "fmul", "mul")


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _kind_of(dtype: Any) -> _Lanes | None:
    return {types.float32: float32s, types.float64: float64s, types.int32: int32s}.get(dtype)


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """Eight numbers of a flat contiguous array from `index` on; the caller sees to the bounds."""
    kind = _kind_of(array.dtype) if isinstance(array, types.Array) and array.layout == "C" and array.ndim == 1 else None
    if kind is None or not isinstance(index, types.Integer):
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        index = context.cast(builder, args[1], sig.args[1], types.intp)
        loaded = builder.load(_place(context, builder, sig.args[0], args[0], index, kind.vector))
        loaded.align = kind.scalar.bitwidth // 8
        return loaded

    return signature(kind, array, index), lower


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write eight numbers to a flat contiguous array from `index` on; the caller sees to the bounds."""
    if not (isinstance(array, types.Array) and array.layout == "C" and array.ndim == 1 and array.mutable):
        return None
    if not isinstance(value, _Lanes) or value != _kind_of(array.dtype):
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        index = context.cast(builder, args[1], sig.args[1], types.intp)
        written = builder.store(args[2], _place(context, builder, sig.args[0], args[0], index, sig.args[2].vector))
        written.align = sig.args[2].scalar.bitwidth // 8
        return context.get_dummy_value()

    return signature(types.none, array, index, value), lower


@intrinsic
def spread(typing: Any, value: Any) -> Any:
    """The same float32 in each lane."""
    if not isinstance(value, types.Number):
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _as(context, builder, float32s, sig.args[0], args[0])

    return signature(float32s, value), lower


@intrinsic
def spread_from(typing: Any, array: Any, index: Any) -> Any:
    """The number at `index` of a flat contiguous array of float32 in each lane; the caller sees to the bounds."""
    kind = _kind_of(array.dtype) if isinstance(array, types.Array) and array.layout == "C" and array.ndim == 1 else None
    if kind != float32s or not isinstance(index, types.Integer):
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        index = context.cast(builder, args[1], sig.args[1], types.intp)
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return _spread(builder, float32s, builder.load(builder.gep(data, [index])))

    return signature(float32s, array, index), lower


@intrinsic
def wide(typing: Any, value: Any) -> Any:
    """float32 lanes, or a scalar, as float64 lanes."""
    if value != float32s and not isinstance(value, types.Number):
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if sig.args[0] == float32s:
            return builder.fpext(args[0], float64s.vector)
        return _as(context, builder, float64s, sig.args[0], args[0])

    return signature(float64s, value), lower


@intrinsic
def single(typing: Any, value: Any) -> Any:
    """float64 or int32 lanes, or an int32, rounded to float32."""
    if value in (float64s, int32s):

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            convert = builder.fptrunc if sig.args[0] == float64s else builder.sitofp
            return convert(args[0], float32s.vector)

        return signature(float32s, value), lower
    if value == types.int32:
        return signature(types.float32, value), lambda context, builder, sig, args: builder.sitofp(
            args[0], ir.FloatType()
        )
    return None


@intrinsic
def bits(typing: Any, value: Any) -> Any:
    """The 32 bits of a float32 as int32, of lanes or of a scalar."""
    kinds = {float32s: (int32s, int32s.vector), types.float32: (types.int32, _INT32)}
    if value not in kinds:
        return None
    result, target = kinds[value]
    return signature(result, value), lambda context, builder, sig, args: builder.bitcast(args[0], target)


@intrinsic
def floats(typing: Any, value: Any) -> Any:
    """The 32 bits of an int32 as float32, of lanes or of a scalar."""
    kinds = {int32s: (float32s, float32s.vector), types.int32: (types.float32, ir.FloatType())}
    if value not in kinds:
        return None
    result, target = kinds[value]
    return signature(result, value), lambda context, builder, sig, args: builder.bitcast(args[0], target)


@intrinsic
def choose(typing: Any, mask: Any, yes: Any, no: Any) -> Any:
    """`yes` where the mask is true, else `no`, without a branch."""
    if mask == int32s:
        common = _common(yes, no)
        if common is None:
            return None
        kind: _Lanes = common

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            left, right = (_as(context, builder, kind, sig.args[at], args[at]) for at in (1, 2))
            true = builder.icmp_signed("<", args[0], ir.Constant(int32s.vector, [0] * WIDTH))
            return builder.select(true, left, right)

        return signature(kind, mask, yes, no), lower
    if mask == types.boolean and types.unliteral(yes) == types.unliteral(no):
        scalar = types.unliteral(yes)
        return signature(scalar, mask, scalar, scalar), lambda context, builder, sig, args: builder.select(*args)
    return None


def call_math(builder: Any, name: str, value: Any) -> Any:
    """LLVM's function `name` from a float type, or a vector of one, to itself."""
    vector = isinstance(value.type, ir.VectorType)
    element = value.type.element if vector else value.type
    suffix = f"{f'v{value.type.count}' if vector else ''}f{64 if isinstance(element, ir.DoubleType) else 32}"
    kind = ir.FunctionType(value.type, [value.type])
    return builder.call(get_or_insert_function(builder.module, kind, f"{name}.{suffix}"), [value])


def _unary(name: str, doc: str) -> Any:
    def typer(typing: Any, value: Any) -> Any:
        if value not in (float32s, float64s):
            return None

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return call_math(builder, name, args[0])

        return signature(value, value), lower

    typer.__doc__ = doc
    return intrinsic(typer)


root = _unary("llvm.sqrt", "Square root of each lane.")
magnitude = _unary("llvm.fabs", "Absolute value of each lane.")
rounded = _unary("llvm.rint", "Each lane rounded to a whole number, halves to the even one.")


@intrinsic
def whole(typing: Any, value: Any) -> Any:
    """float32 lanes as int32, the fraction cut off; the caller sees to the range."""
    if value != float32s:
        return None
    return signature(int32s, value), lambda context, builder, sig, args: builder.fptosi(args[0], int32s.vector)


@intrinsic
def item(typing: Any, value: Any, lane: Any) -> Any:
    """The number in one lane."""
    if not isinstance(value, _Lanes) or not isinstance(lane, types.Integer):
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(args[0], context.cast(builder, args[1], sig.args[1], types.int32))

    return signature(value.scalar, value, lane), lower


@intrinsic
def transposed(typing: Any, rows: Any) -> Any:
    """Eight values as the rows of an 8 × 8 matrix: its columns, as a tuple of eight values."""
    if not (isinstance(rows, types.UniTuple) and rows.dtype == float32s and rows.count == WIDTH):
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def mix(left: Any, right: Any, order: list[int]) -> Any:
            return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_INT32, WIDTH), order))

        given = unpack_tuple(builder, args[0])
        # Each step doubles the blocks that already lie across: pairs, fours, eights, each within what one instruction does.
        pairs = [
            mix(given[at], given[at + 1], order)
            for at in range(0, WIDTH, 2)
            for order in ([0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15])
        ]
        fours = [
            mix(pairs[at + half], pairs[at + half + 2], order)
            for at in (0, 4)
            for half in (0, 1)
            for order in ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15])
        ]
        columns = [
            mix(fours[at], fours[at + 4], order)
            for order in ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
            for at in range(4)
        ]
        return context.make_tuple(builder, sig.return_type, columns)

    return signature(rows, rows), lower


@register_jitable(forceinline=True)
def least(left, right):  # type: ignore[no-untyped-def]
    """The smaller of two lanes; where one is NaN, the right one."""
    return choose(left < right, left, right)


@register_jitable(forceinline=True)
def most(left, right):  # type: ignore[no-untyped-def]
    """The larger of two lanes; where one is NaN, the right one."""
    return choose(left > right, left, right)


@register_jitable
def total(value):  # type: ignore[no-untyped-def]
    """The sum over the lanes, always in the same order."""
    return ((item(value, 0) + item(value, 4)) + (item(value, 1) + item(value, 5))) + (
        (item(value, 2) + item(value, 6)) + (item(value, 3) + item(value, 7))
    )


@register_jitable
def gather(base, offsets, first, length, out, start):  # type: ignore[no-untyped-def]
    """Samples of rows `first` to `first + 7` as lanes: out[start + 8 i + l] is sample i of row first + l.

    Past the last row the last one is repeated, so that a lone row goes through the same arithmetic.

    Args:
        base, offsets: as in `Rows`. out: float32, `start + 8 × length` or more.

    Returns: float32 lanes, 0 for a row of finite samples and NaN for one with a NaN or an infinity.
    """
    last = len(offsets) - 1
    a = offsets[first]
    b = offsets[min(first + 1, last)]
    c = offsets[min(first + 2, last)]
    d = offsets[min(first + 3, last)]
    e = offsets[min(first + 4, last)]
    f = offsets[min(first + 5, last)]
    g = offsets[min(first + 6, last)]
    h = offsets[min(first + 7, last)]
    spoilt = spread(0.0)
    if length < WIDTH:
        for i in range(length):
            at = start + WIDTH * i
            out[at] = base[a + i]
            out[at + 1] = base[b + i]
            out[at + 2] = base[c + i]
            out[at + 3] = base[d + i]
            out[at + 4] = base[e + i]
            out[at + 5] = base[f + i]
            out[at + 6] = base[g + i]
            out[at + 7] = base[h + i]
            x = load(out, at)
            spoilt += x - x
        return spoilt
    i = 0
    while True:
        columns = transposed(
            (
                load(base, a + i),
                load(base, b + i),
                load(base, c + i),
                load(base, d + i),
                load(base, e + i),
                load(base, f + i),
                load(base, g + i),
                load(base, h + i),
            )
        )
        at = start + WIDTH * i
        a0, a1, a2, a3, a4, a5, a6, a7 = columns
        store(out, at, a0)
        store(out, at + WIDTH, a1)
        store(out, at + 2 * WIDTH, a2)
        store(out, at + 3 * WIDTH, a3)
        store(out, at + 4 * WIDTH, a4)
        store(out, at + 5 * WIDTH, a5)
        store(out, at + 6 * WIDTH, a6)
        store(out, at + 7 * WIDTH, a7)
        # NaN less NaN and infinity less infinity are NaN, all else 0; summed in pairs, for a chain of sums would be waited for.
        left = ((a0 - a0) + (a1 - a1)) + ((a2 - a2) + (a3 - a3))
        right = ((a4 - a4) + (a5 - a5)) + ((a6 - a6) + (a7 - a7))
        spoilt += left + right
        if i + WIDTH == length:
            return spoilt
        # The last eight overlap those before: the same samples again cost less than single ones.
        i = min(i + WIDTH, length - WIDTH)


@register_jitable
def scatter(value, first, column, out):  # type: ignore[no-untyped-def]
    """Write lane l to out[first + l, column], for the rows that there are."""
    if first + WIDTH <= out.shape[0]:
        out[first, column] = item(value, 0)
        out[first + 1, column] = item(value, 1)
        out[first + 2, column] = item(value, 2)
        out[first + 3, column] = item(value, 3)
        out[first + 4, column] = item(value, 4)
        out[first + 5, column] = item(value, 5)
        out[first + 6, column] = item(value, 6)
        out[first + 7, column] = item(value, 7)
        return
    for lane in range(out.shape[0] - first):
        out[first + lane, column] = item(value, lane)
