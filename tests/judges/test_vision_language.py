"""A vision-language model as a judge, played by prepared and recorded answers."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grape.core.errors import DataError, ModelError, SettingsError
from grape.judges.vision_language import VisionLanguageJudge, VisionLanguageSettings
from grape.preferences import PairSettings, ScoreSettings, read_pairs, run_pair, run_score
from grape.store import EpisodeStore
from grape.vlm import Answer, Request
from tests.preferences.rollouts import make_rollout
from tests.reporters import Hearing

FIRST = '```json\n{"reason": "it opens\\nthe drawer", "better": "first", "confidence": 0.8}\n```'
SECOND = '{"reason": "the other one", "better": "second", "confidence": 1}'
TIE = '{"reason": "", "better": "tie", "confidence": 0.5}'


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of three initial states, with images."""
    folder = tmp_path_factory.mktemp("scored")
    store = EpisodeStore.create(folder / "store", "metaworld", {})
    rng = np.random.default_rng(0)
    for state in range(3):
        for sample in range(2):
            rollout = make_rollout(state=state, sample=sample, success=bool(sample))
            store.write(dataclasses.replace(rollout, frames=rng.integers(0, 255, (13, 24, 32, 3), dtype=np.uint8)))
    run_score(ScoreSettings(store=store.path, out=folder / "scores"))
    return folder / "scores"


def judge_file(folder: Path, answers: list[str], **settings: Any) -> str:
    """Write prepared answers and the file of a judge that gives them; returns the value of --judge."""
    prepared = folder / "prepared"
    prepared.mkdir()
    for number, answer in enumerate(answers):
        (prepared / f"{number:03d}.txt").write_text(answer)
    lines = {"client": "script", "model": "scripted", "answers": str(prepared)} | settings
    (folder / "judge.yaml").write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in lines.items()))
    return f"vlm:{folder / 'judge.yaml'}"


def pair(scored: Path, out: Path, judge: str, reporter: Any = None) -> dict[str, Any]:
    return dict(run_pair(PairSettings(scores=scored, out=out, judge=judge, mode="random"), reporter or Hearing()))


def test_every_couple_is_shown_both_ways(scored: Path, tmp_path: Path) -> None:
    listener = Hearing()
    answers = [FIRST, SECOND, FIRST, FIRST, TIE, "I cannot tell."]
    summary = pair(scored, tmp_path / "out", judge_file(tmp_path, answers), listener)
    # Agreed; contradicted; a tie and no answer: one pair, of the mean of 0.8 and 1.
    (made,) = read_pairs(tmp_path / "out")
    assert made.margin == pytest.approx(0.8)
    assert 'with probability 0.90 ("it opens the drawer")' in made.reason
    assert (summary["judge"]["answers"], summary["judge"]["ties"], summary["judge"]["unanswered"]) == (6, 1, 1)
    assert summary["judge"]["provenance"]["model"] == "scripted"
    assert "the model's answer cannot be used" in listener.warnings[0]
    assert len(list((tmp_path / "out" / "answers").iterdir())) == 6


def test_kept_answers_are_not_asked_again(scored: Path, tmp_path: Path) -> None:
    judge = judge_file(tmp_path, [FIRST, SECOND, SECOND])
    with pytest.raises(ModelError, match="no answer to question 4"):
        pair(scored, tmp_path / "out", judge)
    for number, answer in enumerate((FIRST, TIE, TIE), start=3):
        (tmp_path / "prepared" / f"{number:03d}.txt").write_text(answer)
    pair(scored, tmp_path / "out", judge)
    first, second = read_pairs(tmp_path / "out")
    assert (first.margin, second.margin) == (pytest.approx(0.8), pytest.approx(0.8))
    # The recording alone gives the same pairs.
    (tmp_path / "replay").mkdir()
    (tmp_path / "replay" / "judge.yaml").write_text(
        f"client: replay\nmodel: scripted\nanswers: {tmp_path / 'out' / 'answers'}\n"
    )
    pair(scored, tmp_path / "replay" / "out", f"vlm:{tmp_path / 'replay' / 'judge.yaml'}")
    replayed = read_pairs(tmp_path / "replay" / "out")
    assert [(item.chosen, item.rejected, item.margin) for item in replayed] == [
        (item.chosen, item.rejected, item.margin) for item in (first, second)
    ]


def test_what_the_model_sees(scored: Path, tmp_path: Path) -> None:
    (tmp_path / "answer.txt").write_text("not asked for")
    requests: list[Request] = []

    class Watching:
        name, origin = "watching", ""

        def ask(self, request: Request) -> Answer:
            requests.append(request)
            return Answer('{"reason": "x", "better": "first", "confidence": 7}')

    store = EpisodeStore.open(scored.parent / "store")
    settings = VisionLanguageSettings(client="script", answers=tmp_path, images=5, image_size=16, criteria='be "kind"')
    judge = VisionLanguageJudge(settings, None, Hearing())
    judge._model = Watching()
    one, other, *_ = store.ids()
    judgment = judge.judge(store.read(one), store.read(other))
    assert judgment.p is None
    assert "'first' with confidence 7" in judgment.problem
    (request,) = requests
    texts = " ".join(message.text for message in request.messages)
    assert '"drawer open"' in texts
    assert '"be \\"kind\\""' in texts
    assert one not in texts  # a name says which policy or sample it was
    grids = [image for message in request.messages for image in message.images]
    # Five images of 12 x 16 on two rows of four, four pixels apart.
    assert [grid.pixels.shape for grid in grids] == [(2 * 12 + 4, 4 * 16 + 3 * 4, 3)] * 2
    with pytest.raises(DataError, match="has no images"):
        judge.judge(store.read(one, frames=False), store.read(other))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: x\n", "Unknown setting 'modle'"),
        ("client: endpoint\n", "--client endpoint needs --model"),
        ("model: x\nimages: 1\n", "--images is 1"),
        ("model: x\ntemperature: hot\n", "needs a number"),
    ],
)
def test_a_wrong_file_is_refused(text: str, message: str, scored: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        pair(scored, tmp_path / "out", f"vlm:{tmp_path / 'judge.yaml'}")
    with pytest.raises(SettingsError, match=r"missing\.yaml does not exist"):
        pair(scored, tmp_path / "out", f"vlm:{tmp_path / 'missing.yaml'}")
    assert not (tmp_path / "out").exists()
