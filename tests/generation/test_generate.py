"""The repair loop and its verb: resumable, within its budget, with a real server on this machine."""

import contextlib
import copy
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from grape.cli.main import main
from grape.core.errors import BudgetError, CompatibilityError, DataError, ModelError, SettingsError
from grape.core.events import SilentReporter
from grape.costs import load_specification
from grape.generation import GenerateCostsSettings, run_generate_costs
from grape.generation.feedback import prompts_hash, system_prompt
from grape.vlm import (
    AnswerFolder,
    Budget,
    EndpointModel,
    Limits,
    Message,
    Prices,
    Recorder,
    Replayer,
    Request,
    Retries,
)
from tests.generation.answers import SPECIFICATION, changed, good, missing_unit, unknown_keypoint
from tests.vlm.server import KEY, Behavior, completion, fails, hangs, says, serving

QUICK = Retries(sleep=lambda seconds: None)


def settings(out: Path, **more: Any) -> GenerateCostsSettings:
    given: dict[str, Any] = {"suite": "toy", "task": "push-block", "client": "endpoint", "model": "tiny"}
    return GenerateCostsSettings(out=out, **(given | more))


@pytest.fixture
def port() -> int:
    """A free port: a server that comes back is the same server only at the same address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, port: int):
    """Runs the verb against a server with a script of behaviors."""

    def run(script: list[Behavior], chosen: GenerateCostsSettings, reporter: Any = None) -> tuple[Any, Any]:
        with serving(*script, port=port) as (endpoint, seen):
            monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url.removesuffix("/chat/completions"))
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
            try:
                return run_generate_costs(chosen, reporter or SilentReporter(), QUICK), seen
            except Exception as error:
                error.seen = seen  # type: ignore[attr-defined]
                raise

    return run


def files(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on interruptions."""
    skipped = {"settings.yaml", "log.jsonl", "spending.jsonl", ".lock"}  # the first holds the path of OUT
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skipped
    }


def test_a_sound_answer_is_accepted_at_once(served: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary, seen = served([says(good())], settings(out))
    assert (summary["accepted"], summary["rounds"], summary["tokens"]) == (True, 1, 120)
    specification = load_specification(out / "specification.yaml")
    assert (specification.suite, specification.task) == ("toy", "push-block")
    assert f"# Prompts {prompts_hash()}" in (out / "specification.yaml").read_text()
    body = seen.bodies[0]
    assert body["messages"][0]["content"] == system_prompt()
    text, image = body["messages"][1]["content"]
    assert "<task-data>" in text["text"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert body["response_format"]["json_schema"]["schema"]["$defs"]
    again, nobody = served([fails(500)], settings(out))
    assert again == summary
    assert nobody.bodies == []


def test_findings_go_back_until_the_answer_is_sound(served: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = [says("I would rather talk."), says(missing_unit()), says(unknown_keypoint()), says(good())]
    summary, seen = served(script, settings(out))
    assert (summary["accepted"], summary["rounds"]) == (True, 4)
    rounds = json.loads((out / "transcript.json").read_text())["rounds"]
    assert [one["found_by"] for one in rounds] == ["answer", "language", "checks", "none"]
    assert rounds[0]["answer"] == "I would rather talk."
    assert rounds[0]["tokens"] == {"prompt": 100, "completion": 20, "estimated": False}
    for before, body in zip(rounds, seen.bodies[1:], strict=False):
        _, _, quoted, repair = body["messages"]
        assert quoted == {"role": "assistant", "content": before["answer"]}
        block = repair["content"].partition("<findings>")[2].partition("</findings>")[0]
        assert json.loads(block) == before["findings"]
        assert len(body["messages"]) == 4, "a repair shows the task, the last answer and its findings only"
    assert len(list((out / "answers").glob("*.json"))) == 4


def test_repairs_end_and_the_candidate_is_kept(served: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary, seen = served([says(unknown_keypoint())], settings(out, repairs=1))
    assert (summary["accepted"], summary["rounds"], len(seen.bodies)) == (False, 2, 2)
    assert "[unknown-keypoint]" in summary["findings"][0]
    assert not (out / "specification.yaml").exists()
    assert "NOT accepted" in (out / "candidate.yaml").read_text()
    more, seen = served([says(good())], settings(out, repairs=2))
    assert (more["accepted"], more["rounds"], len(seen.bodies)) == (True, 3, 1), "answers that were given are kept"
    assert (out / "specification.yaml").exists()
    assert not (out / "candidate.yaml").exists()


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(answered: int, served: Any, tmp_path: Path) -> None:
    script = [says(missing_unit()), says(unknown_keypoint()), says(good())]
    served(script, settings(tmp_path / "whole"))
    stop: list[Behavior] = [*script[:answered], fails(401, "revoked")]
    with pytest.raises(SettingsError, match="refuses the key"):
        served(stop, settings(tmp_path / "stopped"))
    assert not (tmp_path / "stopped" / "done.json").exists()
    assert not (tmp_path / "stopped" / "specification.yaml").exists()
    summary, seen = served(script[answered:], settings(tmp_path / "stopped"))
    assert len(seen.bodies) == 3 - answered
    assert summary["accepted"]
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_a_killed_process_has_asked_for_nothing_in_vain(served: Any, tmp_path: Path, port: int) -> None:
    """SIGKILL while the second question is under way; the ledger knows of it, and the first answer is kept."""
    out = tmp_path / "killed"
    command = ["costs", "generate", "--suite", "toy", "--task", "push-block", "--model", "tiny", "--out", str(out)]
    with serving(says(missing_unit()), hangs, port=port) as (endpoint, seen):
        address = {"OPENAI_BASE_URL": endpoint.url.removesuffix("/chat/completions"), "OPENAI_API_KEY": KEY}
        process = subprocess.Popen([sys.executable, "-m", "grape", *command], env={**os.environ, **address})
        deadline = time.monotonic() + 1200.0
        while len(seen.bodies) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        process.wait()
    assert len(seen.bodies) == 2
    spent = [json.loads(line) for line in (out / "spending.jsonl").read_text().splitlines()]
    assert [row["number"] for row in spent] == [0, 0, 1]
    assert spent[-1]["estimated"]
    summary, seen = served([says(good())], settings(out))
    assert (summary["accepted"], len(seen.bodies)) == (True, 1)
    served([says(missing_unit()), says(good())], settings(tmp_path / "whole"))
    assert files(out) == files(tmp_path / "whole")


def test_a_kill_between_writes_changes_nothing(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies at each atomic write in turn; the next start ends with the same bytes."""
    from grape.core import files as core_files

    script = [says(missing_unit()), says(good())]
    served(script, settings(tmp_path / "whole"))
    expected = files(tmp_path / "whole")
    original = core_files.write_text
    for death in range(12):
        out = tmp_path / f"killed-{death}"
        count = 0

        def dying(path: Path, text: str, death: int = death) -> None:
            nonlocal count
            count += 1
            if count > death:
                raise KeyboardInterrupt
            original(path, text)

        monkeypatch.setattr(core_files, "write_text", dying)
        monkeypatch.setattr("grape.generation.generate_verb.write_text", dying)
        with contextlib.suppress(KeyboardInterrupt):
            served(script, settings(out))
        monkeypatch.setattr(core_files, "write_text", original)
        monkeypatch.setattr("grape.generation.generate_verb.write_text", original)
        kept = len(list((out / "answers").glob("*.json"))) if (out / "answers").is_dir() else 0
        if not (out / "done.json").exists():
            served(script[kept:] or [fails(500)], settings(out))
        assert files(out) == expected


def test_a_specification_that_fails_on_recordings_goes_back(served: Any, tmp_path: Path, toy_store: Path) -> None:
    """Sound as a text, wrong about the task: it rewards the block for being far from its target."""
    (judged,) = copy.deepcopy(SPECIFICATION["outcome"]["subgoal"])
    judged |= {"cost": {"clear_of": {"of": "object", "to": "goal", "by": "60 cm"}}, "worst": "60 cm"}
    judged["weight"] = "20 per m"
    wrong = json.dumps(changed(outcome={"subgoal": [judged]}))
    summary, seen = served([says(wrong), says(good())], settings(tmp_path / "out", store=(toy_store,)))
    assert (summary["accepted"], summary["rounds"]) == (True, 2)
    assert summary["report"]["verdict"] == "accept"
    first = json.loads((tmp_path / "out" / "transcript.json").read_text())["rounds"][0]
    assert first["found_by"] == "trial"
    assert first["report"]["verdict"] == "reject"
    assert first["findings"] == first["report"]["reasons"]
    assert json.dumps(first["findings"][0])[1:40] in seen.bodies[1]["messages"][3]["content"]


def test_recordings_without_a_camera_are_a_finding_and_not_the_end(
    served: Any, tmp_path: Path, toy_store: Path
) -> None:
    """Toy episodes note no camera: the model is told, and a run of the same folder with its answers gets as far."""
    (push,) = (stage for stage in copy.deepcopy(SPECIFICATION["stages"]) if stage["name"] == "push")
    word = {"left_of": {"of": "gripper", "to": "object", "by": "1 cm", "frame": "camera"}}
    push["path"][0] |= {"cost": word}
    odd = json.dumps(changed(stages=[SPECIFICATION["stages"][0], push]))
    summary, seen = served([says(odd), says(good())], settings(tmp_path / "out", store=(toy_store,)))
    assert (summary["accepted"], summary["rounds"]) == (True, 2)
    first = json.loads((tmp_path / "out" / "transcript.json").read_text())["rounds"][0]
    assert first["found_by"] == "checks"
    assert first["findings"][0].startswith("[unknown-frame] ")
    assert "[unknown-frame]" in seen.bodies[1]["messages"][3]["content"]
    assert '"camera"' not in json.dumps(seen.bodies[0]["response_format"])
    (tmp_path / "out" / "done.json").unlink()
    again, seen = served([fails(500)], settings(tmp_path / "out", store=(toy_store,)))
    assert again["accepted"]
    assert not seen.bodies


def test_a_budget_stops_the_run_and_a_larger_one_lets_it_go_on(served: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BudgetError, match="2 of 2 requests are spent"):
        served([says(missing_unit())], settings(out, max_requests=2))
    with pytest.raises(BudgetError, match="2 of 2 requests are spent"):
        served([says(good())], settings(out, max_requests=2))
    summary, seen = served([says(good())], settings(out, max_requests=3))
    assert summary["accepted"]
    assert len(seen.bodies) == 1


def test_rate_limits_and_failures_are_waited_out(served: Any, tmp_path: Path) -> None:
    script = [fails(429, retry_after="2"), fails(503), says("", usage=None), says(good())]
    summary, seen = served(script, settings(tmp_path / "out"))
    assert (summary["accepted"], summary["rounds"], len(seen.bodies)) == (True, 1, 4)
    with pytest.raises(ModelError, match="did not answer in 2 attempts"):
        served([fails(500)], settings(tmp_path / "other", attempts=2))


def test_a_recording_replays_without_a_server(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = served([says(missing_unit()), says(good())], settings(tmp_path / "a"))
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    replayed = run_generate_costs(settings(tmp_path / "b", client="replay", answers=tmp_path / "a" / "answers"))
    assert replayed["provenance"] == first["provenance"]
    assert (tmp_path / "a" / "specification.yaml").read_bytes() == (tmp_path / "b" / "specification.yaml").read_bytes()
    with pytest.raises(ModelError, match="holds no answer"):
        run_generate_costs(
            settings(tmp_path / "c", client="replay", answers=tmp_path / "a" / "answers", instruction="push harder")
        )
    with pytest.raises(SettingsError, match="No endpoint is known"):
        run_generate_costs(settings(tmp_path / "d"))


def test_another_server_with_a_model_of_the_same_name_is_asked_itself(tmp_path: Path) -> None:
    folder, request = AnswerFolder(tmp_path / "answers"), Request((Message("user", "What is it?"),))
    for answer in ("A cup.", "A bowl."):
        with serving(says(answer)) as (endpoint, seen):
            model = Recorder(EndpointModel("tiny", endpoint, Budget(Limits(), Prices())), folder)
            assert [model.ask(request).text, model.ask(request).text] == [answer, answer]
            assert len(seen.bodies) == 1
            assert endpoint.url not in "".join(path.read_text() for path in folder.path.iterdir())
    with pytest.raises(DataError, match="of 2 servers that call a model 'tiny'"):
        Replayer("tiny", folder)


def test_prepared_answers_are_given_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "answers"
    folder.mkdir()
    (folder / "1.txt").write_text("Hm.")
    (folder / "2.json").write_text(good())
    summary = run_generate_costs(settings(tmp_path / "out", client="script", answers=folder, model=""))
    assert (summary["accepted"], summary["rounds"], summary["provenance"]["model"]) == (True, 2, "script")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no answers"):
        run_generate_costs(settings(tmp_path / "e", client="script", answers=tmp_path / "empty"))


def test_the_key_is_in_no_file_line_or_message(served: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Heard(SilentReporter):
        lines: list[str] = []  # noqa: RUF012

        def info(self, message: str) -> None:
            self.lines.append(message)

    echo = completion(f"The key is {KEY}. {good()}")
    out = tmp_path / "out"
    script: list[Behavior] = [fails(500, f"key {KEY}"), lambda handler: handler.send(200, echo)]
    served(script, settings(out), Heard())
    with pytest.raises(SettingsError) as caught:
        served([fails(401, f"bad key {KEY}")], settings(tmp_path / "other"), Heard())
    main(["costs", "generate", "--suite", "toy", "--task", "push-block", "--model", "tiny", "--attempts", "1",
          "--out", str(tmp_path / "third")])  # fmt: skip
    printed = capsys.readouterr()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"spending" not in written or b"number" in written
    for text in (written.decode(), printed.out, printed.err, str(caught.value), "\n".join(Heard.lines)):
        assert KEY not in text
        assert KEY[8:] not in text
    assert (out / "spending.jsonl").exists()


def test_a_task_without_a_suite_needs_words_names_and_a_image(served: Any, tmp_path: Path) -> None:
    names, image = tmp_path / "names.yaml", tmp_path / "first.png"
    names.write_text(
        "keypoints: {gripper: between the tips, object: a block, goal: a mark}\nsignals: {touching: , success: }\n"
    )
    Image.fromarray(np.full((32, 48, 3), 90, dtype=np.uint8)).save(image)
    chosen = settings(
        tmp_path / "out", suite="", task="", instruction="push the block", names=names, image=image, limit=40
    )
    summary, seen = served([says(good())], chosen)
    document = yaml.safe_load((tmp_path / "out" / summary["specification"]).read_text())
    assert document["limit"] == "40 steps"
    assert "suite" not in document
    assert "a block" in seen.bodies[0]["messages"][1]["content"][0]["text"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "", "task": ""}, "No task is named"),
        ({"task": ""}, "--suite needs --task"),
        ({"suite": "", "instruction": "x"}, "--task needs --suite"),
        ({"suite": "toi"}, "Did you mean 'toy'"),
        ({"task": "push"}, "Unknown task"),
        ({"model": ""}, "needs --model"),
        ({"client": "replay"}, "needs --answers"),
        ({"client": "replay", "answers": Path("nowhere")}, "is no folder"),
        ({"repairs": -1}, "--repairs is -1"),
        ({"temperature": float("nan")}, "--temperature is nan"),
        ({"timeout": 0.0}, "--timeout is 0"),
        ({"max_money": 1.0}, "needs the prices"),
        ({"image": Path("nowhere.png")}, "There is no image"),
        ({"image": Path("nowhere.png"), "no_image": True}, "exclude each other"),
        ({"store": (Path("nowhere"),)}, "nowhere"),
        ({"names": Path("nowhere.yaml")}, "does not exist"),
        ({"suite": "", "task": "", "instruction": "x"}, "which keypoints are recorded"),
    ],
)
def test_mistakes_are_told_before_anything_is_asked(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises((SettingsError, DataError, CompatibilityError), match=message):
        run_generate_costs(settings(tmp_path / "out", **change), SilentReporter(), QUICK)


def test_exit_codes_tell_accepted_from_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "answers"
    folder.mkdir()
    (folder / "1.json").write_text(unknown_keypoint())
    (folder / "2.json").write_text(good())
    words = [
        "costs",
        "generate",
        "--suite",
        "toy",
        "--task",
        "push-block",
        "--client",
        "script",
        "--answers",
        str(folder),
    ]
    assert main([*words, "--repairs", "0", "--out", str(tmp_path / "a"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["accepted"] is False
    assert main([*words, "--out", str(tmp_path / "b")]) == 0
    assert "accepted after 2 rounds" in capsys.readouterr().out
    assert main([*words, "--temperature", "9", "--out", str(tmp_path / "c")]) == 2


@pytest.mark.parametrize("setting", ["image", "names", "answers", "out"])
def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(setting: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "1.txt").write_text(good())
    pipe = {"answers": folder / "0.txt", "out": folder / "spending.jsonl"}.get(setting, folder / "pipe")
    os.mkfifo(pipe)
    words = ["costs", "generate", "--suite", "toy", "--task", "push-block"]
    words += ["--client", "script", "--answers", str(folder)] if setting != "out" else ["--model", "m"]
    words += ["--image", str(pipe)] if setting == "image" else ["--no-image"]
    words += ["--names", str(pipe)] if setting == "names" else []
    words += ["--out", str(folder if setting == "out" else tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "grape", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
        env={**os.environ, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": ""},
    )
    if setting == "answers":  # only files are answers
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 2
        assert "pipe" in done.stderr
    assert "Traceback" not in done.stderr
