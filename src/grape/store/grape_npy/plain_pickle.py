"""Plain data out of a pickle, without unpickling: nothing in the file can be called.

A pickle is a program for a small stack machine, two of whose instructions import a name and call it. This reader
interprets the few instructions that numbers, texts, lists, dictionaries, NumPy arrays and Pillow images need. Imported
names stay names: those of a short list stand for data described here, every other one is an error that says which it
was. Python's own unpickler is not used at all.

A pickle can hold one tuple twice in another, that one twice in a third, and so on: a short file that has more leaves
than memory could hold once somebody walks along them. So values are asked for their type before anything is done with
them, and are never turned into text.
"""

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError

__all__ = ["Slot", "read_plain_pickle"]

_MARK = object()


@dataclass(frozen=True)
class _Name:
    """A name that the pickle imports; never looked up."""

    name: str


@dataclass(eq=False)
class Slot:
    """An array, image or element type that the pickle builds in two steps: first made, then filled.

    Attributes:
        kind: ``"array"``, ``"image"`` or ``"dtype"``.
        value: An array (images as uint8 ``(H, W, 3)``, arrays of objects as a list), or an element type.
    """

    kind: str
    value: Any = None


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_ARRAY_MAKERS = frozenset(f"{module}._reconstruct" for module in _MULTIARRAY)
_SCALAR_MAKERS = frozenset(f"{module}.scalar" for module in _MULTIARRAY)
_IMAGES = frozenset({"PIL.Image.Image", "PIL.PngImagePlugin.PngImageFile", "PIL.JpegImagePlugin.JpegImageFile"})
_NAMES = (
    _ARRAY_MAKERS
    | _SCALAR_MAKERS
    | _IMAGES
    | {
        *("numpy.ndarray", "numpy.dtype"),
        *("_codecs.encode", "__builtin__.bytes"),  # bytes under protocol 2, which has no instruction for them
    }
)
_ELEMENTS = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "O8", "O4"})


def read_plain_pickle(data: bytes) -> Any:
    """The value of a pickle that holds plain data.

    Args:
        data: The pickle's bytes, to the end.

    Returns:
        Numbers, texts, bytes, lists, tuples and dictionaries of these, and :class:`Slot` where an array or image is.

    Raises:
        DataError: The pickle is damaged, or does or names anything else; the instruction's place is told.
    """
    machine = _Machine()
    place = 0
    try:
        for instruction, argument, position in pickletools.genops(data):
            place = position or 0
            if instruction.name == "STOP":
                return machine.pop()
            machine.run(instruction.name, argument)
    except DataError as error:
        raise DataError(f"{error.message} (byte {place} of the pickle)", error.hint) from error
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError, MemoryError) as error:
        raise DataError(f"The pickle is damaged near byte {place}: {error}.", "Fetch the file again.") from error
    raise DataError("The pickle has no end.", "Fetch the file again.")


@dataclass
class _Machine:
    """Stack and memory of the interpreter."""

    stack: list[Any] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)

    def run(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise DataError(f"The pickle wants the instruction {name}, which plain data does not need.", _REFUSED)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("the stack is empty")
        return value

    def pop_to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise ValueError("a mark is missing")

    def top(self, kind: type) -> Any:
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise ValueError(f"a {kind.__name__} is due")
        return value

    def remember(self, key: int | None = None) -> None:
        self.memory[len(self.memory) if key is None else key] = self.stack[-1]

    def extend(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | int | float | bytes | bool):
                raise ValueError("a key is neither text nor number")
            target[key] = value

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def import_name(self, name: str) -> None:
        if name not in _NAMES:
            raise DataError(f"The pickle names {name}, which is no plain data.", _REFUSED)
        self.stack.append(_Name(name))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name is no text")
        self.import_name(f"{module}.{name}")

    def call(self) -> None:
        """REDUCE and NEWOBJ: make one of the known things."""
        arguments, maker = self.pop(), self.pop()
        if not isinstance(maker, _Name) or not isinstance(arguments, tuple):
            raise DataError("The pickle calls something that is no name of the list.", _REFUSED)
        self.stack.append(_make(maker.name, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.top(Slot)
        if target.kind == "array" and target.value is None:
            target.value = _array(state)
        elif target.kind == "image" and target.value is None:
            target.value = _image(state)
        elif target.kind == "dtype":
            target.value = _with_byte_order(target.value, state)
        else:
            raise ValueError("something is filled twice")


_REFUSED = "Nothing was run. Rollouts hold images, texts and numbers only; do not open this file with other programs."

_PUSHED = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
    | {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "MEMOIZE": lambda machine, _: machine.remember(),
    "BINPUT": lambda machine, key: machine.remember(key),
    "LONG_BINPUT": lambda machine, key: machine.remember(key),
    "BINGET": lambda machine, key: machine.stack.append(machine.memory[key]),
    "LONG_BINGET": lambda machine, key: machine.stack.append(machine.memory[key]),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "GLOBAL": lambda machine, name: machine.import_name(name.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.stack_global(),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}


def _make(name: str, arguments: tuple[Any, ...]) -> Any:
    if name in _ARRAY_MAKERS:
        if arguments[:1] != (_Name("numpy.ndarray"),):
            raise DataError("The pickle wants an array of a class that is not NumPy's own.", _REFUSED)
        return Slot("array")
    if name in _IMAGES and not arguments:
        return Slot("image")
    if name == "numpy.dtype":
        code = _text(arguments[0])
        if code not in _ELEMENTS:
            raise DataError(f"The pickle holds elements of type {code!r}, which is no plain number.", _REFUSED)
        return Slot("dtype", np.dtype("O" if code[0] == "O" else code))
    if name in _SCALAR_MAKERS:
        dtype, raw = _element(arguments[0]), arguments[1]
        if dtype.kind == "O" or not isinstance(raw, bytes):
            raise ValueError("a number is something else")
        return np.frombuffer(raw, dtype=dtype, count=1).tolist()[0]
    if name == "_codecs.encode" and arguments[1:] == ("latin1",):
        return _text(arguments[0]).encode("latin1")
    if name == "__builtin__.bytes" and not arguments:
        return b""
    raise DataError(f"The pickle calls {name}, which plain data does not need.", _REFUSED)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is due")
    return value


def _element(slot: Any) -> np.dtype[Any]:
    if not isinstance(slot, Slot) or slot.kind != "dtype":
        raise ValueError("an element type is due")
    element: np.dtype[Any] = slot.value
    return element


def _with_byte_order(dtype: np.dtype[Any], state: Any) -> np.dtype[Any]:
    order = state[1]
    if order not in ("<", ">", "|", "="):
        raise ValueError("a byte order is unknown")
    if any(item is not None for item in state[2:5]):
        raise DataError("The pickle holds elements of several fields, which no rollout has.", _REFUSED)
    ordered: np.dtype[Any] = dtype if dtype.kind == "O" else dtype.newbyteorder(order)
    return ordered


def _array(state: Any) -> npt.NDArray[Any] | list[Any]:
    _, shape, element, fortran, content = state
    dtype = _element(element)
    if not isinstance(shape, tuple) or any(not isinstance(side, int) or side < 0 for side in shape):
        raise ValueError("an array has an impossible shape")
    size = math.prod(shape)
    if dtype.kind == "O":
        if not isinstance(content, list) or len(content) != size or len(shape) > 1:
            raise ValueError("an array of objects does not fit its shape")
        return content
    if not isinstance(content, bytes) or len(content) != size * dtype.itemsize:
        raise ValueError("an array does not fit its shape")
    flat = np.frombuffer(content, dtype=dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _image(state: Any) -> npt.NDArray[np.uint8]:
    _, mode, size, _, content = state
    width, height = size
    if not isinstance(width, int) or not isinstance(height, int) or not isinstance(content, bytes):
        raise ValueError("an image has no size or no bytes")
    if _text(mode) != "RGB" or len(content) != width * height * 3:
        raise ValueError(f"an image of mode {mode!r} and size {width} x {height} does not fit its bytes")
    return np.frombuffer(content, dtype=np.uint8).reshape(height, width, 3)
