"""The verb ``merge``: stores joined to one, shards of a collection to the bytes of one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.collect.collect import summarize, summary_of
from grape.collect.merge_sources import Source, check_alike, is_one_collection, missing_shards, read_source
from grape.collect.settings import CollectSettings
from grape.core.errors import DataError, SettingsError
from grape.core.events import SILENT, Reporter, append_event
from grape.core.runs import check_run, open_run
from grape.core.settings import Range, check_ranges, setting
from grape.store import EpisodeStore, note_planned
from grape.store.combined import check_contracts, owners_of
from grape.store.copying import check_space, copy_episode, pack_episodes, size_of

__all__ = ["MergeSettings", "run_merge"]

_MOST_PACKED = 10_000


@dataclass(frozen=True)
class MergeSettings:
    """Join episode stores: shards of one collection to what one run would have written, or collections played alike.

    With --pack also of a single store: its episodes in few files, for file systems that dislike small ones.

    Stores of different collections must agree in suite, contract, policy, preprocessing, temperature and all settings
    but tasks, initial states, samples, mixed episodes, operators, seed and lanes. Episodes that several stores hold
    byte by byte count once; different ones of one name are refused.

    Attributes:
        stores: Stores, or the folders that grape collect wrote.
        out: Folder to write; running again with the same stores, or with more shards, goes on.
        link: Make hard links in place of copies: no space, one file system. The stores then share their files.
        pack: Write so many episodes into one file (a ZIP archive in OUT/store/packs), e.g. 256; 0 writes a file each.
            Every verb reads both. Episodes that are in --out already stay as they are.
        partial: Join what is there although shards or episodes are missing. The result is an unfinished collection,
            which grape merge with the rest, or the same grape collect without --shard, completes.
        dry_run: Print what would be joined, and touch nothing.
    """

    stores: tuple[Path, ...] = setting(identity=False, common=True)
    out: Path = setting(identity=False, common=True)
    link: bool = setting(False, identity=False, common=True)
    pack: int = setting(0, identity=False, range=Range(0, _MOST_PACKED), common=True)
    partial: bool = setting(False, identity=False, common=True)
    dry_run: bool = setting(False, identity=False, common=True)


def run_merge(settings: MergeSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Join the stores in ``out/store``.

    Episodes that are there already are not copied again, so a killed run resumes, to the same bytes.

    Returns:
        Summary: that of the whole collection where shards were joined, else counts, the stores and what they were; with
        ``merged``: how many ``stores`` and ``episodes``, how many of these were ``copied`` now, ``duplicates``,
        ``missing`` ones and ``bytes``.

    Raises:
        SettingsError: No store is given, one twice, or ``out`` lies among them.
        CompatibilityError: The stores do not fit together, or ``out`` belongs to another run.
        DataError: A store is damaged, two hold different episodes of one name, or something is missing and ``partial``
            is not set.
        GrapeError: The disk is full.
    """
    check_ranges(settings)
    if settings.pack and settings.link:
        raise SettingsError("--pack copies episodes into new files, --link copies none.", "Give one of the two.")
    sources = _read(settings)
    stores = [source.store for source in sources]
    check_contracts(stores)
    one = is_one_collection(sources)
    for sentence in () if one else check_alike(sources):
        reporter.warn(sentence)
    run_as = _run_of_result(settings, sources, one)
    target = settings.out / "store"
    begun = check_run(settings.out, *run_as) and (target / "store.json").exists()
    there = [EpisodeStore.open(target)] if begun else []
    owners = owners_of([*stores, *there])
    if not owners:
        raise DataError("The stores hold no episodes.", "Run 'grape collect' first.")
    missing, complete = _check_whole(settings, sources, len(owners), one, reporter)
    known = {name for store in there for name in store.ids()}
    todo = [name for name in owners if name not in known]
    if settings.pack:
        todo.sort()  # equal packs, whichever store was named first
    size = 0 if settings.link else size_of(owners, todo)
    facts = {
        "stores": len(stores),
        "episodes": len(owners),
        "copied": len(todo),
        "duplicates": sum(map(len, stores)) - len({name for store in stores for name in store.ids()}),
        "missing": missing,
        "bytes": size,
    }
    if settings.dry_run:
        kind = "shards or copies of one collection" if one else "collections that were played alike"
        return {"dry_run": True, "joins": kind, **facts, "link": settings.link, "out": str(settings.out)}
    check_space(settings.out, size)
    run, inputs = open_run(settings.out, *run_as), run_as[-1]
    if one:
        note_planned(settings.out, _whole(sources))
    store = EpisodeStore.create(target, stores[0].suite, stores[0].contract)
    with reporter.progress(f"merging into {settings.out.name}", len(owners), len(owners) - len(todo)) as bar:
        for start in range(0, len(todo), settings.pack or 1):
            if settings.pack:
                pack_episodes(owners, todo[start : start + settings.pack], store.packs.next_path())
            else:
                copy_episode(owners[todo[start]], todo[start], target / "episodes", link=settings.link)
            bar.advance(min(settings.pack or 1, len(todo) - start))
    append_event(settings.out, "merged", sources=[str(source.folder) for source in sources], **facts)
    if isinstance(run_as[1], CollectSettings):
        summary = summary_of(run_as[1], store.metas(), inputs, {})
    else:
        unfinished = [str(source.folder) for source in sources if source.lacking or not source.done]
        summary = {**summarize(store.metas()), "store": str(target), **inputs}
        summary |= {"unfinished": unfinished} if unfinished else {}
    if run.done is None and (complete or not one):
        run.finish({**summary, "store": "store"})
    return {**summary, "merged": facts}


def _read(settings: MergeSettings) -> tuple[Source, ...]:
    """What the stores say of themselves; the result must not lie among them."""
    if not settings.stores:
        raise SettingsError("No stores are named.", "Name them, e.g. grape merge runs/1 runs/2 --out runs/whole.")
    sources: dict[Path, Source] = {}
    out = settings.out.resolve()
    for path in settings.stores:
        source = read_source(path)
        place = source.store.path.resolve()
        if place in sources:
            raise SettingsError(f"Store {source.store.path} is given twice.", "Give each store once.")
        if out == place or out.is_relative_to(place) or place.is_relative_to(out):
            raise SettingsError(
                f"--out {settings.out} and the store {source.store.path} lie in each other.", "Choose another --out."
            )
        sources[place] = source
    return tuple(sources.values())


def _whole(sources: Sequence[Source]) -> int | None:
    """Episodes of the whole collection; None where nobody says.

    Raises:
        DataError: The stores contradict each other.
    """
    numbers = {source.whole for source in sources} - {None}
    if len(numbers) > 1:
        raise DataError(
            f"The stores say different numbers of episodes of the whole collection: {sorted(map(str, numbers))}.",
            "Copy them again from where they were written.",
        )
    return next(iter(numbers), None)


def _check_whole(
    settings: MergeSettings, sources: Sequence[Source], episodes: int, one: bool, reporter: Reporter
) -> tuple[int, bool]:
    """How many episodes are missing, as far as it is known, and whether none are; refused unless that is asked for.

    Raises:
        DataError: Episodes are missing, or there are too many.
    """
    whole = _whole(sources) if one else None
    if whole is not None and episodes > whole:
        raise DataError(
            f"The stores hold {episodes} episodes of a collection of {whole}.",
            "Something else was written into one of them: copy it again from where it was collected.",
        )
    lacking = [f"{source.folder} lacks {source.lacking} of {source.planned}" for source in sources if source.lacking]
    lacking += [f"{source.folder} was not finished" for source in sources if not source.lacking and not source.done]
    if whole is not None:
        missing = whole - episodes
        if not missing:
            return 0, True
        absent = missing_shards(sources)
        text = "; ".join([*([f"shards not given: {absent}"] if absent else []), *lacking])
        text = f"{missing} of {whole} episodes are missing" + (f": {text}" if text else "")
    else:
        missing = sum(source.lacking for source in sources)
        if not lacking:
            return 0, True
        text = "; ".join(lacking)
    if not settings.partial:
        raise DataError(
            f"The stores do not hold everything: {text}.",
            "Give the other shards, finish these by the same 'grape collect', or join what is there by --partial.",
        )
    follows = "the result is an unfinished collection" if one else "the result lacks them"
    reporter.warn(f"{text[0].upper()}{text[1:]}: {follows}.")
    return missing, False


def _run_of_result(
    settings: MergeSettings, sources: Sequence[Source], one: bool
) -> tuple[str, CollectSettings | MergeSettings, dict[str, Any]]:
    """Verb, settings and inputs of the folder of the result: those of one collection, or of this verb."""
    if one:
        return "collect", sources[0].run_settings(settings.out), dict(sources[0].inputs)
    digests = sorted({source.store.digest() for source in sources})
    recorded = next((source for source in sources if source.settings), sources[0])
    return "merge", settings, {"suite": sources[0].store.suite, "stores": digests, **recorded.common()}
