"""Symbolic evaluation of a function's body: each expression becomes what it measures.

Only straight-line arithmetic is understood: assignments to names, a ``return``, and the calls listed here. Everything
else raises :class:`TranslationError`. Names are looked up in fixed tables, never in the interpreter.
"""

import ast
import math
from collections.abc import Callable, Mapping, Sequence

from grape.generation.python_import import algebra
from grape.generation.python_import.measures import (
    AXES,
    Coordinate,
    Grasp,
    Scalar,
    TranslationError,
    Value,
    Vector,
    number,
)

__all__ = ["NamesOfPoints", "returned_value"]

MAX_DEPTH = 60
MAX_STATEMENTS = 100
MAX_INDEX = 255
MAX_MEAN = 16

NamesOfPoints = Callable[[int], str]
"""Name of ``keypoints[i]``; raises TranslationError where there is none."""

_CONSTANTS = {"np.pi": math.pi, "numpy.pi": math.pi, "math.pi": math.pi}
_GRASP = "get_grasping_cost_by_keypoint_idx"


def returned_value(function: ast.FunctionDef, gripper: str, keypoint: NamesOfPoints) -> Scalar:
    """What a constraint function returns.

    Args:
        function: ``def ...(end_effector, keypoints)``.
        gripper: Name of the end effector's keypoint.
        keypoint: Names of the others.

    Raises:
        TranslationError: Its body is no straight-line arithmetic of the known kinds.
    """
    arguments = function.args
    if len(arguments.args) != 2 or arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs:
        raise TranslationError("does not take the two arguments (end_effector, keypoints)")
    if function.decorator_list:
        raise TranslationError("has a decorator")
    reader = _Reader(keypoint, arguments.args[1].arg)
    reader.values[arguments.args[0].arg] = _point(gripper)
    if len(function.body) > MAX_STATEMENTS:
        raise TranslationError(f"has more than {MAX_STATEMENTS} statements")
    for statement in function.body:
        result = reader.statement(statement)
        if result is not None:
            return result
    raise TranslationError("returns nothing")


def _point(name: str) -> Vector:
    return Vector(tuple(Scalar({Coordinate(name, axis): 1.0}) for axis in AXES))


class _Reader:
    def __init__(self, keypoint: NamesOfPoints, keypoints: str) -> None:
        self.keypoint, self.keypoints = keypoint, keypoints
        self.values: dict[str, Value] = {}
        self.depth = 0

    def statement(self, node: ast.stmt) -> Scalar | None:
        """Run one statement; the returned value where it returns."""
        match node:
            case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                return None
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                self.values[self._free(name)] = self.value(value)
            case ast.AugAssign(target=ast.Name(id=name), op=operator, value=value):
                self.values[self._free(name)] = _binary(operator)(self._named(name), self.value(value))
            case ast.Return(value=ast.expr() as value):
                return _scalar(self.value(value))
            case ast.If():
                raise TranslationError("branches with 'if'")
            case ast.For() | ast.While():
                raise TranslationError("has a loop")
            case _:
                raise TranslationError(f"has a statement of kind {type(node).__name__}")
        return None

    def _free(self, name: str) -> str:
        if name == self.keypoints:
            raise TranslationError(f"assigns to {name!r}")
        return name

    def _named(self, name: str) -> Value:
        if name not in self.values:
            raise TranslationError(f"uses the unknown name {name[:40]!r}")
        return self.values[name]

    def value(self, node: ast.expr) -> Value:
        """What an expression measures."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TranslationError("is nested too deeply")
        try:
            return self._value(node)
        finally:
            self.depth -= 1

    def _value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=value) if isinstance(value, int | float) and not isinstance(value, bool):
                if isinstance(value, int) and value.bit_length() > 64:
                    raise TranslationError("holds a number beyond any length or angle")
                return number(value)
            case ast.Name(id=name):
                return self._named(name)
            case ast.Attribute() if _dotted(node) in _CONSTANTS:
                return number(_CONSTANTS[_dotted(node)])
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.value(operand).scaled(-1.0)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.value(operand)
            case ast.BinOp(left=left, op=operator, right=right):
                return _binary(operator)(self.value(left), self.value(right))
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return self._vector(parts)
            case ast.Subscript():
                return self._item(node)
            case ast.Call():
                return self._call(node)
            case ast.IfExp() | ast.Compare() | ast.BoolOp():
                raise TranslationError("branches on a comparison")
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp() | ast.DictComp():
                raise TranslationError("has a loop in brackets")
            case ast.Lambda():
                raise TranslationError("defines a function inside")
            case _:
                raise TranslationError(f"holds an expression of kind {type(node).__name__}")

    def _vector(self, parts: Sequence[ast.expr]) -> Vector:
        if not 2 <= len(parts) <= 3:
            raise TranslationError(f"holds a list of {len(parts)} values; points have 3 coordinates")
        return Vector(tuple(_scalar(self.value(part)) for part in parts), "xyz"[: len(parts)])

    def _item(self, node: ast.Subscript) -> Value:
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=index) if name == self.keypoints:
                match index:
                    case ast.Tuple(elts=[first, second]):
                        return _part(_point(self.keypoint(_index(first))), second)
                return _point(self.keypoint(_index(index)))
        whole = self.value(node.value)
        if isinstance(whole, Scalar):
            raise TranslationError("takes a part of a number")
        return _part(whole, node.slice)

    def _call(self, node: ast.Call) -> Value:
        name = _dotted(node.func)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == _GRASP and len(node.args) == 1 and not keywords:
            return Scalar({Grasp(self.keypoint(_index(node.args[0]))): 1.0})
        if isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
            return self._method(node.func, node.args, keywords)
        short = name.rpartition(".")[2] if name.partition(".")[0] in ("np", "numpy", "math") else name
        if short == "mean" and len(node.args) == 1 and _zero(keywords.pop("axis", None)) and not keywords:
            return self._mean(node.args[0])
        if keywords or short not in _FUNCTIONS:
            raise TranslationError(f"calls {name[:60]!r}" + (" with keyword arguments" if keywords else ""))
        if short in ("max", "maximum") and len(node.args) == 1 and isinstance(node.args[0], ast.List | ast.Tuple):
            return _FUNCTIONS[short]([self.value(part) for part in node.args[0].elts])
        return _FUNCTIONS[short]([self.value(argument) for argument in node.args])

    def _method(
        self, function: ast.Attribute, arguments: Sequence[ast.expr], keywords: Mapping[str | None, ast.expr]
    ) -> Value:
        if function.attr not in ("dot", "sum", "copy") or keywords:
            raise TranslationError(f"calls the method {function.attr[:40]!r}")
        return _FUNCTIONS[function.attr]([self.value(function.value), *map(self.value, arguments)])

    def _mean(self, node: ast.expr) -> Value:
        points = self._points(node)
        if not 1 <= len(points) <= MAX_MEAN:
            raise TranslationError(f"takes the mean of {len(points)} points")
        result = points[0]
        for part in points[1:]:
            result = algebra.add(result, part)
        return result.scaled(1.0 / len(points))

    def _points(self, node: ast.expr) -> list[Value]:
        """A list of points: written out, or several keypoints by their numbers."""
        match node:
            case ast.Call(args=[inner], keywords=[]) if _dotted(node.func) in ("np.array", "numpy.array"):
                return self._points(inner)
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [self.value(part) for part in parts]
            case ast.Subscript(value=ast.Name(id=name), slice=places) if name == self.keypoints:
                return [_point(self.keypoint(index)) for index in _indices(places)]
        raise TranslationError("takes the mean of something other than a list of points")


def _zero(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value == 0 and not isinstance(node.value, bool)


def _is_module(node: ast.expr) -> bool:
    return _dotted(node).partition(".")[0] in ("np", "numpy", "math")


def _dotted(node: ast.expr) -> str:
    """``a.b.c`` as text; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute) and len(parts) < 4:
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *parts[::-1]]) if isinstance(node, ast.Name) else ""


def _index(node: ast.expr) -> int:
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool) and 0 <= value <= MAX_INDEX:
            return value
    raise TranslationError(f"picks a keypoint by something other than a number from 0 to {MAX_INDEX}")


def _indices(node: ast.expr) -> list[int]:
    """``[1, 2]``, ``np.array([1, 2])`` or ``1:3``."""
    match node:
        case ast.List(elts=parts):
            return [_index(part) for part in parts]
        case ast.Call(args=[ast.List(elts=parts)], keywords=[]) if _dotted(node.func) in ("np.array", "numpy.array"):
            return [_index(part) for part in parts]
        case ast.Slice(lower=ast.expr() as lower, upper=ast.expr() as upper, step=None):
            return list(range(_index(lower), min(_index(upper), _index(lower) + MAX_MEAN + 1)))
    raise TranslationError("takes the mean of something other than a list of points")


def _part(vector: Vector, index: ast.expr) -> Value:
    match index:
        case ast.Constant(value=int() as place) if not isinstance(place, bool) and 0 <= place < len(vector.parts):
            return vector.parts[place]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=1)):
            return vector.parts[-1]
        case ast.Slice(lower=None | ast.Constant(value=0), upper=ast.Constant(value=int() as end), step=None) if (
            2 <= end <= len(vector.parts)
        ):
            return Vector(vector.parts[:end], vector.axes[:end])
        case ast.Slice(lower=None, upper=None, step=None):
            return vector
    raise TranslationError("takes an unknown part of a point")


def _scalar(value: Value) -> Scalar:
    if isinstance(value, Vector):
        raise TranslationError("gives a point where a number is due")
    return value


def _vector(value: Value) -> Vector:
    if isinstance(value, Scalar):
        raise TranslationError("gives a number where a point is due")
    return value


def _power(left: Value, right: Value) -> Value:
    exponent = _scalar(right)
    if not exponent.known or exponent.constant not in (0.5, 1.0, 2.0):
        raise TranslationError("raises to a power other than 2")
    if exponent.constant == 2.0:
        return algebra.square(left)
    return left if exponent.constant == 1.0 else algebra.root(_scalar(left))


def _binary(operator: ast.operator) -> Callable[[Value, Value], Value]:
    match operator:
        case ast.Add():
            return algebra.add
        case ast.Sub():
            return lambda left, right: algebra.add(left, right.scaled(-1.0))
        case ast.Mult():
            return algebra.multiply
        case ast.Div():
            return algebra.divide
        case ast.Pow():
            return _power
        case ast.MatMult():
            return lambda left, right: algebra.dot(_vector(left), _vector(right))
    raise TranslationError(f"uses the operator {type(operator).__name__}")


def _one(values: Sequence[Value]) -> Value:
    if len(values) != 1:
        raise TranslationError(f"calls a function of one argument with {len(values)}")
    return values[0]


def _two(values: Sequence[Value]) -> tuple[Vector, Vector]:
    if len(values) != 2:
        raise TranslationError(f"calls a function of two arguments with {len(values)}")
    return _vector(values[0]), _vector(values[1])


def _constant(work: Callable[[float], float]) -> Callable[[Sequence[Value]], Value]:
    def function(values: Sequence[Value]) -> Value:
        value = _scalar(_one(values))
        if not value.known:
            raise TranslationError("takes a sine, cosine or the like of something measured")
        return number(work(value.constant))

    return function


def _sum(values: Sequence[Value]) -> Value:
    value = _one(values)
    return algebra.total(value) if isinstance(value, Vector) else value


def _clip(values: Sequence[Value]) -> Value:
    """Numerical guard around a cosine, or a lower bound of 0 on a cost: neither changes what is meant."""
    if len(values) != 3:
        raise TranslationError("clips with something other than two bounds")
    value, low, high = map(_scalar, values)
    if not (low.known and high.known and low.constant < high.constant):
        raise TranslationError("clips with bounds that are not constant")
    if (low.constant, high.constant) != (-1.0, 1.0):
        raise TranslationError("clips to something other than -1 and 1")
    return value


def _zeros(values: Sequence[Value]) -> Value:
    if _one(values) not in (number(3), number(2)):
        raise TranslationError("makes an array that is no point")
    return Vector((Scalar(),) * round(_scalar(values[0]).constant), "xyz"[: round(_scalar(values[0]).constant)])


def _maximum(values: Sequence[Value]) -> Value:
    if len(values) < 2:
        raise TranslationError("takes the maximum of fewer than two numbers")
    return algebra.largest([_scalar(value) for value in values])


_FUNCTIONS: Mapping[str, Callable[[Sequence[Value]], Value]] = {
    "norm": lambda values: algebra.length(_vector(_one(values))),
    "dot": lambda values: algebra.dot(*_two(values)),
    "inner": lambda values: algebra.dot(*_two(values)),
    "sum": _sum,
    "copy": _one,
    "array": _one,
    "asarray": _one,
    "float": lambda values: _scalar(_one(values)),
    "abs": lambda values: algebra.absolute(_scalar(_one(values))),
    "fabs": lambda values: algebra.absolute(_scalar(_one(values))),
    "absolute": lambda values: algebra.absolute(_scalar(_one(values))),
    "square": lambda values: algebra.square(_one(values)),
    "sqrt": lambda values: algebra.root(_scalar(_one(values))),
    "arccos": lambda values: algebra.arc_cosine(_scalar(_one(values))),
    "acos": lambda values: algebra.arc_cosine(_scalar(_one(values))),
    "clip": _clip,
    "max": _maximum,
    "maximum": _maximum,
    "zeros": _zeros,
    "deg2rad": lambda values: _scalar(_one(values)).scaled(math.pi / 180.0),
    "radians": lambda values: _scalar(_one(values)).scaled(math.pi / 180.0),
    "rad2deg": lambda values: _scalar(_one(values)).scaled(180.0 / math.pi),
    "degrees": lambda values: _scalar(_one(values)).scaled(180.0 / math.pi),
    "cos": _constant(math.cos),
    "sin": _constant(math.sin),
    "tan": _constant(math.tan),
}
