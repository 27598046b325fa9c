import base64
import dataclasses
import hashlib
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from grape.core.errors import DataError, SettingsError
from grape.core.files import read_json, write_json, write_jsonl, write_text
from grape.core.runs import open_run
from grape.costs import with_unknown_outcome
from grape.evaluation import EpisodeOutcome, EvaluationResults, write_results
from grape.preferences.records import load_pairs, pair_to_row, score_to_row
from grape.report import ReportSettings, run_report
from grape.store import EpisodeStore
from tests.report.synthetic_run import episode, pair_of, score, write_evaluation, write_iteration, write_run


class Page(HTMLParser):
    """What matters of a page: its tags with attributes, and its visible text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._hidden = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag in ("script", "style"):
            self._hidden = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._hidden = ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(1 for name, _ in self.tags if name == tag)

    def words(self) -> str:
        return " ".join(self.text.split())


def test_the_page_states_before_after_interval_and_test(page: Path) -> None:
    words = Page(page).words()
    assert "Iteration 3 is better than SFT by +36.0 points (95 % interval" in words
    assert "exact McNemar on 100 paired episodes" in words
    assert "p < 0.001" in words
    assert "36 gained, 0 lost" in words
    assert "rejected: significantly worse" in words
    assert "0 things missing" not in words


def test_the_page_shows_pairs_with_videos_curves_and_reasons(page: Path) -> None:
    parsed = Page(page)
    videos = [attributes for tag, attributes in parsed.tags if tag == "video"]
    assert len(videos) == 8
    for video in videos:
        assert video["src"].startswith("data:video/mp4;base64,")
        assert {"loop", "muted", "controls", "playsinline"} <= video.keys()
    assert "It solved the task in" in parsed.words()
    assert parsed.text.count("Why: the score taken apart") == 4
    assert sum(1 for tag, a in parsed.tags if tag == "path" and a.get("class") == "value") >= 16


def test_nothing_is_loaded_from_anywhere(page: Path) -> None:
    parsed = Page(page)
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "poster", "action", "data", "srcset", "xlink:href"):
            address = attributes.get(name, "data:")
            citation = tag == "a" and address == "https://arxiv.org/abs/2411.19309"
            assert citation or address.startswith(("data:", "#")), f"<{tag} {name}={address[:80]}>"
    assert not re.search(r"url\(|@import", page.read_text(encoding="utf-8"))
    assert "default-src 'none'" in page.read_text(encoding="utf-8")


def test_only_the_pages_own_script_may_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_equal_runs_give_equal_bytes(page: Path, tmp_path: Path) -> None:
    again = write_run(tmp_path / "elsewhere")
    run_report(ReportSettings(run=again, pairs_shown=4))
    assert (again / "report.html").read_bytes() == page.read_bytes()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evil = '</script><script>alert(1)</script>"><img src=x onerror=alert(2)>{{ 7 * 7 }}'
    task = "drawer-open\"><svg onload='alert(3)'>"
    rollouts = [episode("drawer-open", 1, sample, success=not sample) for sample in (0, 1)]
    store = EpisodeStore.create(tmp_path / "collect" / "store", "metaworld", {})
    for rollout in rollouts:
        store.write(rollout)
    scores = [vars(score(rollout)) | {"task": task} for rollout in rollouts]
    scores = [type(score(rollouts[0]))(**fields) for fields in scores]
    pair = type(pair_of(*scores))(**(vars(pair_of(*scores)) | {"reason": evil, "mode": evil}))
    for verb, rows in (("score", map(score_to_row, scores)), ("pair", [pair_to_row(pair)])):
        folder = open_run(tmp_path / verb, verb, {"scores": evil})
        write_jsonl(folder.path / f"{verb}s.jsonl", rows)
        folder.finish({"store": "../collect/store"})
    write_text(tmp_path / "settings.yaml", f"title: {evil!r}\n")
    write_json(tmp_path / "loop.json", {"title": evil, "suite": evil, "tasks": [task], "versions": {evil: evil}})
    run_report(ReportSettings(run=tmp_path))
    parsed = Page(tmp_path / "report.html")
    assert parsed.count("script") == 1
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert all(attributes["src"].startswith("data:") for tag, attributes in parsed.tags if tag == "img")
    assert "<script>alert(1)</script>" in parsed.text
    assert "{{ 7 * 7 }}" in parsed.text
    assert task in parsed.text


def test_a_run_that_stopped_half_way_shows_what_is_there(tmp_path: Path) -> None:
    run = write_run(tmp_path / "half", iterations=2, finished=False)
    open_run(run / "iteration-2" / "evaluate", "evaluate", {"episodes": 25})
    summary = run_report(ReportSettings(run=run, pairs_shown=1))
    words = Page(run / "report.html").words()
    assert "iteration-2/evaluate: 'grape evaluate' was started here and is not complete." in words
    assert "The final comparison on test states has not been made" in words
    assert summary["verdict"] == "better"
    assert "the states that also chose the policy" in words
    assert "iteration 1" in words


def test_a_single_set_of_folders_is_enough(tmp_path: Path) -> None:
    write_iteration(tmp_path, 1000, states=1)
    shutil.rmtree(tmp_path / "train")
    summary = run_report(ReportSettings(run=tmp_path))
    assert summary["pairs"] == 2
    assert summary["missing"] == ["This run has no training and no evaluation yet."]
    assert "success_rate" not in summary
    assert "No success rate yet." in Page(tmp_path / "report.html").words()


@pytest.mark.parametrize(
    ("method", "caveat", "heading"),
    [("kto", "KTO (arXiv", "KTO loss"), ("rloo", "group adv", "Group advantages (RLOO)")],
)
def test_a_run_without_pairs_lacks_none_and_explains_its_loss(
    tmp_path: Path, method: str, caveat: str, heading: str
) -> None:
    write_iteration(tmp_path, 1000, states=1)
    for name in ("pair", "train"):
        shutil.rmtree(tmp_path / name)
    open_run(tmp_path / "train", "train", {"method": method, "scores": "score"}).finish({})
    (tmp_path / "train" / "metrics.jsonl").write_text('{"update": 1, "loss": 0.5}\n')
    summary = run_report(ReportSettings(run=tmp_path))
    assert summary["missing"] == ["This run has no evaluation yet."]
    words = Page(tmp_path / "report.html").words()
    assert f"Trained with {caveat}" in words
    assert f" {heading} L=" in words
    assert "TPO loss" not in words
    assert "the best are set against the worst" not in words
    assert "the better ones more likely and the others less" in words


@pytest.mark.parametrize(
    ("methods", "imitates", "prefers"),
    [(["filtered-bc"], True, False), (["tpo"], False, True), (["filtered-bc", "tpo"], False, True)],
)
def test_what_the_policy_learns_is_told_by_what_trained_it(
    tmp_path: Path, methods: list[str], imitates: bool, prefers: bool
) -> None:
    for number, method in enumerate(methods, 1):
        folder = tmp_path / f"iteration-{number}"
        write_iteration(folder, 1000 * number, states=1)
        shutil.rmtree(folder / "train")
        open_run(folder / "train", "train", {"method": method, "pairs": "pair"}).finish({})
        (folder / "train" / "metrics.jsonl").write_text('{"update": 1, "loss": 0.5}\n')
    run_report(ReportSettings(run=tmp_path))
    words = Page(tmp_path / "report.html").words()
    assert "the best are set against the worst" in words
    assert ("the policy imitates chosen ones and learns nothing from the rejected ones." in words) is imitates
    assert ("find the chosen ones more likely than the rejected ones, relative to" in words) is prefers
    assert ("Filtered behavior cloning L=−1nlog" in words) is ("filtered-bc" in methods)


def test_one_evaluation_is_reported_without_a_comparison(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "results", 0.5, first_state=0)
    summary = run_report(ReportSettings(run=tmp_path))
    assert summary["verdict"] == ""
    assert "There is no second policy to compare it with yet" in Page(tmp_path / "report.html").words()


def test_an_evaluation_by_protocol_says_so_and_shows_what_it_measured(tmp_path: Path) -> None:
    results = EvaluationResults.from_outcomes(
        [
            EpisodeOutcome("carrot", state, 0, state < 3, 60, {"success_end": state < 3, "success_ever": state < 6})
            for state in range(24)
        ],
        {"carrot": "put carrot on plate"},
        suite="simpler_widowx",
        policy="policy",
        policy_hash="h",
        temperature=0.0,
        seed=0,
        versions={},
        protocol="simpler-widowx-24x3",
        until="last-step",
    )
    run = open_run(tmp_path / "e", "evaluate", {})
    write_results(tmp_path / "e", results)
    run.finish({})
    run_report(ReportSettings(run=tmp_path / "e"))
    text = (tmp_path / "e" / "report.html").read_text()
    assert "protocol simpler-widowx-24x3; episodes run to their last step" in text
    assert "success, ever" in text
    assert '12.5 % <span class="soft small">4.3 % – 31 %</span>' in text
    assert "An episode runs to its last step: success counts in the last state" in text


def test_lost_episodes_cost_the_videos_only(tmp_path: Path) -> None:
    write_iteration(tmp_path, 1000, states=1)
    for file in (tmp_path / "collect" / "store" / "episodes").glob("drawer-open*.parquet"):
        file.unlink()
    assert run_report(ReportSettings(run=tmp_path))["pairs"] == 2
    parsed = Page(tmp_path / "report.html")
    assert parsed.count("video") == 2
    assert "no longer in the run's folder" in parsed.words()


def test_truncated_files_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "torn", iterations=1)
    (run / "iteration-1" / "train" / "metrics.jsonl").write_text('{"update": 1, "loss": 0.5}\n{"upd', encoding="utf-8")
    (run / "evaluate" / "sft" / "results.json").write_text("{", encoding="utf-8")
    missing = " ".join(run_report(ReportSettings(run=run, pairs_shown=0))["missing"])
    assert "metrics.jsonl, line 2" in missing
    assert "evaluation of SFT" in missing
    assert "better than SFT" in Page(run / "report.html").words()


def test_numbers_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train" / "metrics.jsonl", [{"update": 1, "loss": 1.0}])
    with (tmp_path / "train" / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"update": 2, "loss": NaN}\n{"update": 3, "loss": 0.5}\n')
    run_report(ReportSettings(run=tmp_path))
    assert (
        "nan" not in (tmp_path / "report.html").read_text(encoding="utf-8").split("</style>")[1].partition("<script")[0]
    )


def test_used_evaluation_states_are_found_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", iterations=1)
    assert "none of the 100 evaluated initial states" in _caveats(run)
    write_evaluation(run / "test" / "sft", 0.4, first_state=1003)
    write_evaluation(run / "test" / "last", 0.8, first_state=1003)
    assert "6 of the 50 evaluated initial states were also used" in _caveats(run)


def test_what_a_training_warned_of_is_a_caveat(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", iterations=2)
    for number, alarm in ((1, "Update 7: chosen trajectories fell."), (2, "")):
        folder = run / f"iteration-{number}" / "train"
        write_json(folder / "run.json", {"verb": "train"})
        write_json(folder / "done.json", {"alarm": alarm})
    words = _caveats(run)
    assert "Training of iteration 1: Update 7: chosen trajectories fell." in words
    assert "Training of iteration 2" not in words


def _caveats(run: Path) -> str:
    run_report(ReportSettings(run=run, pairs_shown=0))
    return Page(run / "report.html").words()


def test_no_accepted_iteration_is_said_plainly(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", iterations=1)
    facts = read_json(run / "loop.json")
    facts["policies"][1]["accepted"] = False
    facts["test"]["after"] = facts["test"]["before"]
    write_json(run / "loop.json", facts)
    run_report(ReportSettings(run=run, pairs_shown=0))
    assert "The result is the first policy (SFT): no iteration was accepted" in Page(run / "report.html").words()


def test_further_arms_stand_beside_the_runs_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", iterations=2)
    facts = read_json(run / "loop.json")
    write_evaluation(run / "cloning" / "evaluate", 0.5, first_state=70_000)
    cloning = [facts["policies"][0], {"label": "iteration 1", "evaluation": "cloning/evaluate"}]
    facts["arms"] = [{"label": "filtered BC", "policies": cloning}]
    write_json(run / "loop.json", facts)
    run_report(ReportSettings(run=run, pairs_shown=0))
    parsed = Page(run / "report.html")
    assert parsed.words().count("filtered BC") >= 2
    # Another shape and another dash pattern, not only another color.
    assert any(
        tag == "rect" and "st1" in attributes["class"] for tag, attributes in parsed.tags if "class" in attributes
    )


def test_nothing_to_show_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing that a report could show"):
        run_report(ReportSettings(run=tmp_path))
    with pytest.raises(SettingsError, match="does not exist") as caught:
        run_report(ReportSettings(run=tmp_path / "absent"))
    assert "a folder that holds what verbs wrote" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_folder_to_write_to_is_refused_before_any_work(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grape.report.report.read_contents", lambda _: pytest.fail("read before the check"))
    with pytest.raises(SettingsError, match="is a folder") as caught:
        run_report(ReportSettings(run=run, out=run))
    assert caught.value.hint == "--out is a file to write, e.g. report.html."


@pytest.mark.parametrize("settings", [{"pairs_shown": -1}, {"video_size": 63}, {"video_size": 1025}])
def test_settings_out_of_range_are_refused(tmp_path: Path, settings: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="--"):
        run_report(ReportSettings(run=tmp_path, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("package", ["jinja2", "av"])
def test_a_missing_package_names_the_extra(run: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=re.escape("pip install 'grape-vla[report]'")):
        run_report(ReportSettings(run=run, out=run / "never.html", pairs_shown=1))
    assert not (run / "never.html").exists()


def test_unknown_outcomes_are_shown_as_unknown(tmp_path: Path) -> None:
    rollouts = [episode("drawer-open", 1, sample, success=not sample) for sample in (0, 1)]
    store = EpisodeStore.create(tmp_path / "collect" / "store", "metaworld", {})
    for rollout in rollouts:
        store.write(with_unknown_outcome(rollout))
    scores = [dataclasses.replace(score(rollout), success=None) for rollout in rollouts]
    for verb, rows in (("score", map(score_to_row, scores)), ("pair", [pair_to_row(pair_of(*scores))])):
        run = open_run(tmp_path / verb, verb, {"scores": "all"})
        write_jsonl(tmp_path / verb / f"{verb}s.jsonl", rows)
        run.finish({"store": "../collect/store"})
    write_json(tmp_path / "loop.json", {"title": "unknown", "suite": "metaworld", "tasks": ["drawer-open"]})
    run_report(ReportSettings(run=tmp_path))
    words = Page(tmp_path / "report.html").words()
    assert words.count("outcome unknown") >= 2
    assert "not solved" not in words


def test_what_a_pair_compares_of_an_episode_and_its_weight_are_shown(tmp_path: Path) -> None:
    write_iteration(tmp_path, 1, states=1, tasks=["drawer-open"])
    path = tmp_path / "pair" / "pairs.jsonl"
    (whole,) = load_pairs(path)
    assert "compared" not in page_of(tmp_path).words()
    cut = dataclasses.replace(whole, rejected_steps=(0, 8), weight=1.25)
    write_jsonl(path, [pair_to_row(cut)])
    parsed = page_of(tmp_path)
    assert "decisions 1–8 of 16 compared" in parsed.words()
    assert "weight 1.25" in parsed.words()
    hidden = [attributes["style"] for _, attributes in parsed.tags if attributes.get("class") == "uncompared"]
    assert hidden == [f"left:{100 * 8 / 17:.2f}%;width:{100 * 9 / 17:.2f}%"]
    staged = dataclasses.replace(whole, chosen_steps=(2, 5), rejected_steps=(3, 16), margin=0.7, terms={"stage": 0.7})
    write_jsonl(path, [pair_to_row(staged)])
    words = page_of(tmp_path).words()
    assert "s cost +0.7" in words
    assert "stage cost +0.7" in words
    assert "The scores of the whole episodes" in words
    assert "Why: the score taken apart" not in words


def page_of(run: Path) -> Page:
    run_report(ReportSettings(run=run))
    return Page(run / "report.html")


def test_evaluations_without_a_loop_begin_with_the_one_before_and_claim_no_order(tmp_path: Path) -> None:
    for name, rate in (("after", 0.8), ("before", 0.4)):
        write_evaluation(tmp_path / name, rate, first_state=20_000)
    run_report(ReportSettings(run=tmp_path))
    words = Page(tmp_path / "report.html").words()
    assert "After is better than before" in words
    assert "nothing here says which policy came of which" in words
    assert "in the order of training" not in words
    assert "also chose the policy" not in words
