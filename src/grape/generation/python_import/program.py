"""Translation of a file of constraint functions to a specification, with a list of what was left out."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grape.core.errors import DataError
from grape.generation.python_import.expressions import returned_value
from grape.generation.python_import.measures import TranslationError
from grape.generation.python_import.relations import Points, RecognizedRelation, Tolerance, length, relations_of

__all__ = ["Header", "LeftOut", "Translation", "translate"]

_FUNCTION = re.compile(r"stage_?(\d{1,3})_(subgoal|path)_constraints?_?(\d{0,3})", re.ASCII)
MAX_STAGES = 32
MAX_FUNCTIONS = 256
MAX_DESCRIPTION = 160


@dataclass(frozen=True)
class Header:
    """Fields of the specification that the file does not state.

    Attributes:
        suite: Suite of the task; may be empty.
        task: The task; may be empty.
        limit: Decisions after which an episode ends.
        control_hz: Decisions a second; None if unknown.
        gripper: Keypoint that ``end_effector`` stands for.
        keypoints: Names of ``keypoints[0]``, ``keypoints[1]``, ...; where there are none they are called after their
            number on the image.
        tolerance: What counts as reached where a function only measures.
    """

    suite: str = ""
    task: str = ""
    limit: int = 300
    control_hz: float | None = None
    gripper: str = "gripper"
    keypoints: tuple[str, ...] = ()
    tolerance: Tolerance = field(default_factory=Tolerance)


@dataclass(frozen=True)
class LeftOut:
    """Something that was not translated.

    Attributes:
        line: Where, from 1.
        what: The function's or statement's name.
        why: A sentence without a full stop.
    """

    line: int
    what: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}, {self.what}: {self.why}."


@dataclass
class Translation:
    """Result of translating a file.

    Attributes:
        document: The specification, as its YAML says it.
        translated: Names of the functions that became constraints.
        left_out: What did not.
        notes: What is not quite as in the file.
    """

    document: dict[str, Any]
    translated: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def translate(tree: ast.Module, header: Header, source: str) -> Translation:
    """Translate a file's constraint functions.

    Args:
        tree: Syntax tree, see :func:`grape.generation.python_import.source.parse_source`.
        header: What the file does not say.
        source: What messages call the file.

    Raises:
        DataError: Nothing of it could be translated; the reasons are listed.
    """
    work = _Work(header, Translation({}), Points(header.gripper, frozenset(header.keypoints)))
    for node in tree.body:
        work.top_level(node)
    work.translation.document = work.document()
    if not work.translation.translated or not work.translation.document["stages"]:
        listing = "".join(f"\n  {item}" for item in sorted(work.translation.left_out, key=lambda item: item.line)[:40])
        raise DataError(
            f"{source} holds no constraint function that could be translated.{listing}",
            "Functions are named stage1_subgoal_constraint1(end_effector, keypoints) and the like; "
            "see docs/generation.md.",
        )
    return work.translation


@dataclass
class _Work:
    header: Header
    translation: Translation
    points: Points
    recognized: dict[tuple[int, str], list[tuple[str, str, RecognizedRelation]]] = field(default_factory=dict)
    lists: dict[str, list[int]] = field(default_factory=dict)
    stages: int = 0
    functions: int = 0

    def top_level(self, node: ast.stmt) -> None:
        """Take in one statement of the file."""
        match node:
            case ast.FunctionDef():
                self._function(node)
            case ast.Assign(targets=[ast.Name(id="num_stages")], value=ast.Constant(value=int() as count)) if (
                0 < count <= MAX_STAGES
            ):
                self.stages = max(self.stages, count)
            case ast.Assign(targets=[ast.Name(id="grasp_keypoints" | "release_keypoints" as name)], value=value):
                self._indices(name, value)
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
                pass  # the imports that are let through, and remarks
            case _:
                what = ast.unparse(node).partition("\n")[0][:60] if isinstance(node, ast.Assign) else "statement"
                self.leave_out(node.lineno, what, "is no constraint function")

    def leave_out(self, line: int, what: str, why: str) -> None:
        """Note that something was not translated."""
        self.translation.left_out.append(LeftOut(line, what, why))

    def _indices(self, name: str, value: ast.expr) -> None:
        try:
            parsed = ast.literal_eval(value)
        except (ValueError, TypeError, MemoryError, RecursionError, SyntaxError):
            parsed = None
        whole = isinstance(parsed, list | tuple) and len(parsed) <= MAX_STAGES
        if not whole or not all(type(item) is int and -1 <= item < 256 for item in parsed):
            self.leave_out(value.lineno, name, "is no list of keypoint numbers, one a stage, -1 for none")
            return
        self.lists[name] = list(parsed)

    def _function(self, node: ast.FunctionDef) -> None:
        match = _FUNCTION.fullmatch(node.name)
        if match is None or not 1 <= int(match[1]) <= MAX_STAGES:
            self.leave_out(node.lineno, node.name[:60], "is not named like a constraint function")
            return
        stage, kind = int(match[1]), match[2]
        self.stages = max(self.stages, stage)
        self.functions += 1
        try:
            if self.functions > MAX_FUNCTIONS:
                raise TranslationError(f"comes after {MAX_FUNCTIONS} others, and no more are read")
            value = returned_value(node, self.header.gripper, self._keypoint)
            relations = relations_of(value, self.points, self.header.tolerance)
        except TranslationError as reason:
            self.leave_out(node.lineno, node.name, str(reason))
            return
        self.translation.translated.append(node.name)
        described = _description(node)
        entries = self.recognized.setdefault((stage, kind), [])
        for number, relation in enumerate(relations, start=1):
            suffix = "" if len(relations) == 1 else f"-{number}"
            entries.append((f"{kind}-{match[3] or len(entries) + 1}{suffix}", described, relation))
            self.translation.notes += [f"{node.name}: {note}." for note in relation.notes]
        if len(relations) > 1:
            self.translation.notes.append(f"{node.name}: became {len(relations)} constraints, whose costs are added.")

    def _keypoint(self, index: int) -> str:
        if not self.header.keypoints:
            return f"point_{index}"
        if index >= len(self.header.keypoints):
            raise TranslationError(f"uses keypoint {index}, and only {len(self.header.keypoints)} are named")
        return self.header.keypoints[index]

    def document(self) -> dict[str, Any]:
        """The specification."""
        stages = [stage for number in range(1, self.stages + 1) if (stage := self._stage(number))]
        signals = ["grasped"] if _speaks_of_grasps(stages) else []
        head: dict[str, Any] = {"version": 1}
        head |= {"suite": self.header.suite} if self.header.suite else {}
        head |= {"task": self.header.task} if self.header.task else {}
        head["limit"] = f"{self.header.limit} steps"
        head |= {"control_hz": f"{self.header.control_hz:g} Hz"} if self.header.control_hz else {}
        used_names = set(_points_in(stages))
        derived = {name: declared for name, declared in self.points.derived.items() if name in used_names}
        used_names |= {part for declared in derived.values() for part in declared["mean_of"]}
        named = [self._declared(name) for name in self.points.used if name in used_names]
        derived_points = [{"name": name} | declared for name, declared in derived.items()]
        return head | {"keypoints": [*named, *derived_points], "signals": signals, "stages": stages}

    def _declared(self, name: str) -> Any:
        number = re.fullmatch(r"point_(\d+)", name)
        return {"name": name, "picture": int(number[1])} if number and not self.header.keypoints else name

    def _stage(self, number: int) -> dict[str, Any] | None:
        subgoals, paths = self.recognized.get((number, "subgoal"), []), self.recognized.get((number, "path"), [])
        holds = [dict(subgoal.holds) for _, _, subgoal in subgoals]
        for name, word in (("grasp_keypoints", "grasped"), ("release_keypoints", "released")):
            indices = self.lists.get(name, [])
            if number <= len(indices) and indices[number - 1] >= 0 and {word: {}} not in holds:
                holds.append({word: {}})
        if not holds:
            self.leave_out(1, f"stage {number}", "nothing that was translated says when it ends, so it has no place")
            return None
        stage: dict[str, Any] = {
            "name": f"stage-{number}",
            "done_when": holds[0] if len(holds) == 1 else {"all": holds},
        }
        if subgoals:
            stage["subgoal"] = _unique([_constraint(*entry, path=False) for entry in subgoals])
        if paths:
            stage["path"] = _unique([_constraint(*entry, path=True) for entry in paths])
        return stage


def _constraint(name: str, description: str, relation: RecognizedRelation, path: bool) -> dict[str, Any]:
    factor = min(max(relation.factor, 0.1), 10.0)
    constraint: dict[str, Any] = {"name": name}
    if description:
        constraint["description"] = description
    constraint["cost"] = dict(relation.cost)
    if path:
        constraint["aggregate"] = "mean"
    if relation.unit == "m":
        worst = max(0.25, 2.0 * relation.threshold)
        constraint |= {"weight": f"{factor:g} per m", "worst": length(worst)}
        constraint |= {"threshold": length(relation.threshold)} if relation.threshold else {}
    elif relation.unit == "deg":
        constraint |= {"weight": "0.005 per deg", "worst": "60 deg"}
        constraint |= {"threshold": f"{relation.threshold:g} deg"} if relation.threshold else {}
    else:
        constraint["weight"] = 0.2
    constraint["objectives"] = ["completion", "safety"] if path else ["completion"]
    return constraint


def _unique(constraints: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with every name once; two functions may carry one number."""
    names: set[str] = set()
    for constraint in constraints:
        name, number = constraint["name"], 2
        while constraint["name"] in names:
            constraint["name"], number = f"{name}.{number}", number + 1
        names.add(constraint["name"])
    return constraints


def _description(node: ast.FunctionDef) -> str:
    """The function's remark as one short line of plain characters: the file comes from outside."""
    text = " ".join((ast.get_docstring(node) or "").split())
    plain = "".join(character for character in text if character.isprintable())
    return plain if len(plain) <= MAX_DESCRIPTION else plain[: MAX_DESCRIPTION - 3] + "..."


def _points_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in ("of", "to", "base", "tip"):
                yield inner
            else:
                yield from _points_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _points_in(inner)


def _speaks_of_grasps(stages: Sequence[Mapping[str, Any]]) -> bool:
    def inside(value: Any) -> bool:
        if isinstance(value, Mapping):
            return bool({"grasped", "released"} & value.keys()) or any(map(inside, value.values()))
        return isinstance(value, list) and any(map(inside, value))

    return any(map(inside, stages))
