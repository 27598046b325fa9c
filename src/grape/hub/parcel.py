"""What of a folder is pushed: recognized by what the folder holds, and listed file by file.

Only files that belong to the thing are taken: no logs, no training state, no pickles, no settings with paths. A record
in which a path or a command line may stand is written anew without it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, SettingsError
from grape.core.files import read_json_mapping
from grape.core.repositories import RepositoryKind, hub_address, is_address, local_folder, read_hub_name
from grape.core.runs import load_summary, read_run_settings
from grape.hub.disclosure import public_value
from grape.hub.settings import PushSettings
from grape.preferences.records import PAIRS_FILE, read_pairs, recorded_stores
from grape.store import EpisodeStore, open_stores
from grape.store.combined import owners_of
from grape.store.packs import PackedFile

__all__ = ["Parcel", "read_parcel"]

_ADAPTER_CONFIG, _POINTER = "adapter_config.json", "grape_adapter.json"
_PYTHON = ("configuration_prismatic.py", "modeling_prismatic.py", "processing_prismatic.py")
"""Files of published checkpoints for other programs; GRAPE runs none of them."""
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".npy")
_MADE_HERE = frozenset({"README.md", "grape_push.json", ".gitattributes"})
_TRAINED = ("sft", "train")


@dataclass(frozen=True)
class Parcel:
    """The files of one thing, and what is known of it.

    Attributes:
        what: ``policy``, ``adapter``, ``store``, ``pairs`` or ``report``.
        place: Folder of the thing.
        run: Folder of the verb that made it; None where there is none.
        files: By name in the repository: the file here, or the text to write.
        verb: The verb that made it; empty where nothing says it.
        settings: What the verb was told, without paths.
        summary: The verb's summary.
        inputs: What the run was made from, as it recorded it.
        base_model: Name on the hub of what the policy was trained from; empty for none or where it is not there.
        datasets: Names on the hub of the data it was made from.
        left_out: Files of the folder that are not pushed.
        cautions: What the one who pushes should know.
    """

    what: str
    place: Path
    run: Path | None
    files: Mapping[str, Path | str]
    verb: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    base_model: str = ""
    datasets: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()

    @property
    def kind(self) -> RepositoryKind:
        """What the repository is on the hub."""
        return "model" if self.what in ("policy", "adapter") else "dataset"


def read_parcel(settings: PushSettings) -> Parcel:
    """Find out what is pushed, and list its files; nothing is written.

    Raises:
        SettingsError: The folder is none, or is not what ``what`` says; or an adapter's base is not on the hub.
        DataError: The folder holds nothing to push, is not complete, or is damaged.
    """
    if not settings.run.is_dir():
        raise SettingsError(f"{settings.run} is no folder.", "Give what 'grape train', 'collect', 'pair', ... wrote.")
    what, place, run = _recognize(settings.run, settings.what)
    facts = _facts(run)
    if what == "store":
        return _store_parcel(place, run, facts)
    if what == "pairs":
        return _pairs_parcel(place, facts)
    if what == "report":
        return _report_parcel(place, facts)
    return _policy_parcel(what, place, run, facts, settings.base)


def _verb_of(folder: Path) -> str:
    if not (folder / "run.json").is_file():
        return ""
    return str(read_json_mapping(folder / "run.json", within=folder).get("verb", ""))


def _recognize(folder: Path, choice: str) -> tuple[str, Path, Path | None]:
    """Kind, place and run folder of what is pushed."""
    verb = _verb_of(folder)
    places = {name: place for name, place in _places(folder, verb).items() if place.is_dir()}
    if not places:
        raise DataError(
            f"{folder} holds nothing that can be pushed.",
            "Give the output folder of grape sft, train, collect, pair or loop, a checkpoint, a store, or the folder "
            "with a report.html.",
        )
    what = next(iter(places)) if choice == "auto" else choice
    if what not in places:
        raise SettingsError(
            f"{folder} holds no {what} to push.",
            "'grape report' writes its page first." if what == "report" else f"It holds: {', '.join(places)}.",
        )
    place = places[what]
    if what == "report":
        return what, place, folder if verb else None
    owner = next((path for path in (place, place.absolute().parent) if _verb_of(path)), None)
    if owner is not None and what != "store":
        load_summary(owner, _verb_of(owner))
    return what, place, owner


def _places(folder: Path, verb: str) -> dict[str, Path]:
    """Folder of each thing that may be pushed, the one that the folder is first of all first."""
    places: dict[str, Path] = {}
    if verb in _TRAINED or verb == "loop":
        name = str(load_summary(folder, verb).get("policy", "policy"))
        policy = local_folder(name) if is_address(name) else folder / name
        places[_policy_kind(policy)] = policy
    elif (folder / "store.json").is_file():
        places["store"] = folder
    elif verb == "pair" or (folder / PAIRS_FILE).is_file():
        places["pairs"] = folder
    elif (folder / "store" / "store.json").is_file():
        places["store"] = folder / "store"
    elif (folder / _ADAPTER_CONFIG).is_file() or (folder / "config.json").is_file():
        places[_policy_kind(folder)] = folder
    if (folder / "report.html").is_file() or (folder / "study.html").is_file():
        places["report"] = folder
    return places


def _policy_kind(folder: Path) -> str:
    return "adapter" if (folder / _ADAPTER_CONFIG).is_file() else "policy"


def _facts(run: Path | None) -> dict[str, Any]:
    """What the run says of itself: verb, settings, summary, inputs, and the data that it names on the hub."""
    if run is None:
        return {}
    verb = _verb_of(run)
    recorded = read_json_mapping(run / "run.json", within=run)
    settings = read_run_settings(run) if (run / "settings.yaml").is_file() else {}
    settings = settings if isinstance(settings, dict) else {}
    data = [name for key in ("pairs", "scores", "data", "store") for name in _hub_names(settings.get(key))]
    inputs = recorded.get("inputs")
    return {
        "verb": verb,
        "settings": {
            key: value
            for key, value in public_value(settings).items()
            if key != "out" and value not in (None, "", [], {})
        },
        "summary": load_summary(run, verb) if (run / "done.json").is_file() else {},
        "inputs": public_value(inputs) if isinstance(inputs, dict) else {},
        "datasets": tuple(dict.fromkeys(data)),
        "start": str(settings.get("policy") or ""),
    }


def _hub_names(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    names = [hub_address(item) for item in values if isinstance(item, str)]
    return [name.repository for name in names if name is not None]


def _without(facts: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key not in ("start", *names)}


def _policy_parcel(what: str, place: Path, run: Path | None, facts: Mapping[str, Any], base: str) -> Parcel:
    names = sorted(entry.name for entry in place.iterdir() if entry.is_file())
    pickles = [name for name in names if name.lower().endswith(_PICKLES)]
    if pickles:
        raise SettingsError(
            f"{place} holds {pickles[0]}, which may run code where it is opened; nothing of that kind is pushed.",
            "Save its tensors as safetensors, or publish this checkpoint by other means.",
        )
    belongs = [
        name
        for name in names
        if name not in _MADE_HERE
        and name[0] != "."
        and (name.endswith((".safetensors", ".json")) or name in ("tokenizer.model", *_PYTHON))
    ]
    if not any(name.endswith(".safetensors") for name in belongs):
        raise DataError(f"{place} holds no weights (*.safetensors).", "Give the folder of a whole policy or adapter.")
    files: dict[str, Path | str] = {name: place / name for name in belongs}
    start = facts.get("start", "")
    base_name = read_hub_name(start) if start.startswith("hf:/") or not Path(start).exists() else None
    base_model = "" if base_name is None else base_name.repository
    if what == "adapter":
        base_model, changed = _adapter_files(place, base)
        files |= changed
    left_out = [name for name in names if name not in belongs and name not in _MADE_HERE]
    return Parcel(what, place, run, files, base_model=base_model, left_out=tuple(left_out), **_without(facts))


def _adapter_files(place: Path, base: str) -> tuple[str, dict[str, Path | str]]:
    """Name of an adapter's base on the hub, and the files that must be written anew to name it."""
    pointed = place / _POINTER if (place / _POINTER).is_file() else place / _ADAPTER_CONFIG
    key = "base" if pointed.name == _POINTER else "base_model_name_or_path"
    stated = str(read_json_mapping(pointed, within=place).get(key) or "")
    local = any((root / stated).is_dir() for root in (place, Path())) and not stated.startswith("hf:/")
    name = read_hub_name(base or ("" if local else stated))
    if name is None:
        raise SettingsError(
            f"The adapter in {place} belongs to the policy in folder {stated}, which nobody else has.",
            "Push that policy first, then name it: --base NAMESPACE/NAME@COMMIT.",
        )
    if not base and stated in (str(name), name.address):
        return name.repository, {}
    config = read_json_mapping(place / _ADAPTER_CONFIG, within=place)
    config |= {"base_model_name_or_path": name.repository, "revision": name.revision}
    files: dict[str, Path | str] = {_ADAPTER_CONFIG: json.dumps(config, indent=1, sort_keys=True) + "\n"}
    if pointed.name == _POINTER:
        pointer = read_json_mapping(pointed, within=place) | {"base": name.address}
        files[_POINTER] = json.dumps(pointer, indent=1, sort_keys=True) + "\n"
    return name.repository, files


def _store_files(store: EpisodeStore, names: tuple[str, ...], prefix: str = "") -> dict[str, Path | str]:
    owners = owners_of(store.parts)
    files: dict[str, Path | str] = {f"{prefix}store.json": store.path / "store.json"}
    packs: dict[Path, None] = {}
    for name in names:
        place = owners[name].place_of(name)
        if isinstance(place, PackedFile):
            packs[place.pack] = None
        else:
            files[f"{prefix}episodes/{name}.parquet"] = place
    # Packs of several stores may have one name.
    return files | {f"{prefix}packs/pack-{number:06d}.zip": pack for number, pack in enumerate(packs)}


def _store_parcel(place: Path, run: Path | None, facts: Mapping[str, Any]) -> Parcel:
    store = EpisodeStore.open(place)
    if not store.ids():
        raise DataError(f"Episode store {place} holds no episodes.", "Run 'grape collect' first.")
    cautions: tuple[str, ...] = ()
    if run is not None and not (run / "done.json").is_file():
        cautions = (f"The collection in {run} is not complete; what is there is pushed.",)
    return Parcel("store", store.path, run, _store_files(store, store.ids()), cautions=cautions, **_without(facts))


def _pairs_parcel(place: Path, facts: Mapping[str, Any]) -> Parcel:
    pairs, store = read_pairs(place), open_stores(recorded_stores(place))
    names = tuple(sorted({name for pair in pairs for name in (pair.chosen, pair.rejected)}))
    for name in names:
        store.meta(name)
    recorded = public_value(read_json_mapping(place / "run.json", within=place))
    done = public_value({key: value for key, value in facts["summary"].items() if key != "stores"}) | {"store": "store"}
    files: dict[str, Path | str] = {
        PAIRS_FILE: place / PAIRS_FILE,
        "run.json": json.dumps(recorded, indent=1, sort_keys=True) + "\n",
        "done.json": json.dumps(done, indent=1) + "\n",
        **_store_files(store, names, "store/"),
    }
    return Parcel("pairs", place, place, files, **_without(facts))


def _report_parcel(place: Path, facts: Mapping[str, Any]) -> Parcel:
    files: dict[str, Path | str] = {
        name: place / name for name in ("report.html", "study.html") if (place / name).is_file()
    }
    figures = place / "figures"
    if figures.is_dir():
        drawn = sorted(path for path in figures.iterdir() if path.suffix in (".pdf", ".png", ".csv"))
        files |= {f"figures/{path.name}": path for path in drawn}
    return Parcel("report", place, place if facts else None, files, **_without(facts))
