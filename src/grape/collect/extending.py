"""Extending a run: more tasks, initial states, samples or mixed episodes, while what was recorded stays as it is.

A run's record (``run.json``) holds the settings of today and, under ``extended``, those that grew since, oldest first.
So the plan can be made again: the episodes of the first settings, then what each extension added, in groups of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from grape.collect.plan import Group, make_plan
from grape.collect.settings import CollectSettings
from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.events import append_event
from grape.core.files import read_json_mapping, write_json
from grape.core.folder_locks import lock_folder
from grape.core.runs import DONE_FILE, RUN_FILE, identity_of, recorded_inputs, run_record
from grape.core.selections import parse_numbers
from grape.core.settings import flag_of
from grape.envs.base import SuiteBase
from grape.envs.registry import select_tasks

__all__ = ["check_extension", "extend_record", "recorded_extensions", "stages_of"]

GROWING = ("initial_states", "mixed_episodes", "mixed_samples", "operators", "samples", "tasks")
"""Settings that an extension may change, sorted as in a record."""
_DEFAULTS = {item.name: item.default for item in fields(CollectSettings) if item.name in GROWING}


def recorded_extensions(settings: CollectSettings) -> list[Mapping[str, Any]]:
    """Earlier values of what grew in the run in ``out``, oldest first; none where it never did.

    Raises:
        DataError: The record is damaged.
    """
    inputs = recorded_inputs(settings.out, "collect") or {}
    entries = inputs.get("extended", [])
    names = set(GROWING)
    if not isinstance(entries, list) or not all(isinstance(item, dict) and names >= item.keys() for item in entries):
        raise DataError(f"{settings.out / RUN_FILE} says nothing usable of extensions.", "Restore it from a copy.")
    return entries


def stages_of(settings: CollectSettings, extensions: Sequence[Mapping[str, Any]]) -> tuple[CollectSettings, ...]:
    """Settings of a run from its beginning to today: those of each extension but for what grew, then its own."""
    return (*(replace(settings, **{**_DEFAULTS, **item}) for item in extensions), settings)


def check_extension(settings: CollectSettings, suite: SuiteBase) -> list[Mapping[str, Any]]:
    """Check that nothing of the run in ``out`` is left out or would be other than it was recorded.

    What a policy and its precision decide is compared by :func:`extend_record`.

    Returns:
        Earlier values of what grew, today's included where these settings ask for more than it.

    Raises:
        SettingsError: There is no run in ``out``, or shards are asked for.
        CompatibilityError: Episodes would be left out or changed; the flag is named.
    """
    if settings.shard:
        raise SettingsError(
            f"--extend and --shard {settings.shard}: a shard is a part of one plan.",
            "Merge the shards and extend the whole, or collect further initial states into another run, in shards.",
        )
    if recorded_inputs(settings.out, "collect") is None:
        raise SettingsError(
            f"--extend: {settings.out} holds no run of 'grape collect'.", "Check --out, or leave --extend out."
        )
    extensions = recorded_extensions(settings)
    record = _record(settings)
    recorded, today = record["settings"], identity_of(settings)
    if _grown(recorded) == _grown(today):
        return extensions
    before = stages_of(settings, [_grown(recorded)])[0]
    _check_growth(settings, before, suite)
    return [*extensions, _grown(recorded)]


def extend_record(
    settings: CollectSettings, inputs: Mapping[str, Any], extensions: Sequence[Mapping[str, Any]]
) -> None:
    """Make the run in ``out`` one of these settings; without anything new it is left alone.

    Args:
        settings: Resolved ones, that :func:`check_extension` found to be larger.
        inputs: Of the run, see :func:`grape.core.runs.open_run`.
        extensions: What the check returned.

    Raises:
        CompatibilityError: Other settings or inputs than those that may grow differ; the flag is named.
    """
    lock = lock_folder(settings.out)
    record = _record(settings)
    _refuse_other(settings, record, inputs)
    if list(extensions) == record["inputs"].get("extended", []):
        return
    # Without a summary the run is unfinished, whichever record a kill in between leaves.
    (settings.out / DONE_FILE).unlink(missing_ok=True)
    write_json(settings.out / RUN_FILE, run_record("collect", settings, {**inputs, "extended": list(extensions)}))
    append_event(settings.out, "extended", before=dict(extensions[-1]))
    del lock


def _record(settings: CollectSettings) -> dict[str, Any]:
    marker = settings.out / RUN_FILE
    record = read_json_mapping(marker, hint="Restore it from a copy.", within=settings.out)
    if not all(isinstance(record.get(name), dict) for name in ("settings", "inputs")):
        raise DataError(f"{marker} is damaged.", "Restore it from a copy.")
    return record


def _grown(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Those of an identity's settings that may grow."""
    return {name: recorded[name] for name in GROWING if name in recorded}


def _refuse_other(settings: CollectSettings, record: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    recorded, today = record["settings"], identity_of(settings)
    for name in sorted({*recorded, *today} - set(GROWING)):
        if recorded.get(name) != today.get(name):
            raise CompatibilityError(
                f"--extend keeps the episodes of {settings.out}, which were recorded with {flag_of(name)} "
                f"{recorded.get(name, 'as by default')}, not {today.get(name, 'as by default')}.",
                f"Give {flag_of(name)} as it was, or collect into another --out.",
            )
    known = record["inputs"]
    for name in sorted({*known, *inputs} - {"extended"}):
        if known.get(name) != inputs.get(name):
            raise CompatibilityError(
                f"--extend keeps the episodes of {settings.out}, whose {name} was {known.get(name)!r:.90}, not "
                f"{inputs.get(name)!r:.90}.",
                "Give the policy that recorded them, opened as it was then (--policy, --dtype, --device, "
                "--center-crop), and the same releases; or collect into another --out.",
            )


def _check_growth(settings: CollectSettings, before: CollectSettings, suite: SuiteBase) -> None:
    """Refuse settings whose plan lacks an episode of the recorded one, or plays it otherwise."""
    tasks = {task.name for task in select_tasks(suite, settings.tasks)}
    fewer = [task.name for task in select_tasks(suite, before.tasks) if task.name not in tasks]
    if fewer:
        raise _smaller(settings, "tasks", f"leaves out {', '.join(fewer)}", before.tasks or "(all)")
    states = set(parse_numbers(settings.initial_states, "initial states"))
    gone = [state for state in parse_numbers(before.initial_states, "initial states") if state not in states]
    if gone:
        what = f"leaves out {len(gone)} initial states, the first being {gone[0]}"
        raise _smaller(settings, "initial_states", what, before.initial_states)
    for name in ("samples", "mixed_episodes"):
        if getattr(settings, name) < getattr(before, name):
            raise _smaller(settings, name, "is less than was recorded", getattr(before, name))
    if before.mixed_episodes and settings.most_samples < before.most_samples:
        raise _smaller(settings, "mixed_samples", "is less than was recorded", before.most_samples)
    operators = _operators(make_plan(settings, suite))
    for name, operator in _operators(make_plan(before, suite)).items():
        if operators[name] != operator:
            raise _smaller(
                settings, "operators", f"gives {name} to '{operators[name]}', not '{operator}'", before.operators
            )


def _operators(groups: Sequence[Group]) -> dict[str, str]:
    return {episode.episode_id: episode.operator for group in groups for episode in group.episodes}


def _smaller(settings: CollectSettings, name: str, what: str, before: object) -> CompatibilityError:
    return CompatibilityError(
        f"--extend keeps what {settings.out} holds, and {flag_of(name)} {getattr(settings, name)} {what}.",
        f"It was {flag_of(name)} {before}: name all of that and more, new initial states behind the recorded ones.",
    )
