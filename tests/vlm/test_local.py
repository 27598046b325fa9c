"""A local model, tiny and random: from a conversation to text, and what is refused."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from grape.core.errors import SettingsError
from grape.vlm import ChatImage, Message, Request
from grape.vlm.local import LocalModel, _text

pytest.importorskip("torch")
from tests.vlm.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def question(level: int, **options: float) -> Request:
    image = ChatImage.of(np.full((40, 30, 3), level, dtype=np.uint8))
    messages = (Message("system", "Be brief."), Message("user", "What is it?", (image,)))
    return Request(messages, max_tokens=12, **options)


def test_it_answers_about_the_image(folder: Path) -> None:
    model = LocalModel(str(folder), device="cpu")
    dark, bright = model.ask(question(0)), model.ask(question(255))
    assert model.ask(question(0)) == dark
    assert dark.text != bright.text, "the image must reach the model"
    assert dark.usage.completion_tokens == 12
    assert dark.truncated
    characters = len("<system>Be brief.<user>What is it?<assistant>")
    assert dark.usage.prompt_tokens == characters + 4, "one token a byte, and four patches"


def test_sampling_follows_the_seed(folder: Path) -> None:
    model = LocalModel(str(folder), device="cpu")
    first = model.ask(question(100, temperature=1.5, seed=1))
    assert model.ask(question(100, temperature=1.5, seed=1)) == first
    assert model.ask(question(100, temperature=1.5, seed=2)).text != first.text


def test_loading_waits_for_the_first_question() -> None:
    model = LocalModel("/nowhere/at/all")
    assert model.name == "local:/nowhere/at/all"
    with pytest.raises(SettingsError, match="cannot be used as a model"):
        model.ask(question(0))


def test_code_in_a_checkpoint_is_not_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    for source in folder.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    canary = tmp_path / "canary"
    (tmp_path / "evil.py").write_text(f"open({str(canary)!r}, 'w').write('ran')\nclass Evil: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    classes = {"AutoConfig": "evil.Evil", "AutoModelForImageTextToText": "evil.Evil"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": classes}))
    with pytest.raises(SettingsError, match="cannot be used as a model"):
        LocalModel(str(tmp_path), device="cpu").ask(question(0))
    assert not canary.exists()


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    for source in folder.iterdir():
        if source.suffix != ".safetensors":
            (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(SettingsError, match="cannot be used as a model"):
        LocalModel(str(tmp_path), device="cpu").ask(question(0))


def test_a_model_without_a_chat_template_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no chat template"):
        LocalModel(str(make_tiny_model(tmp_path, template=None)), device="cpu").ask(question(0))


@pytest.mark.parametrize(
    ("whole", "text"),
    [
        ("[THINK]a draft[/THINK]the answer</s>", "[THINK]a draft[/THINK]the answer</s>"),
        ("<|channel|>analysis<|message|>a draft<|end|>", "<|channel|>analysis<|message|>a draft<|end|>"),
        ("\u25c1think\u25b7a draft\u25c1/think\u25b7", "\u25c1think\u25b7a draft\u25c1/think\u25b7"),
        ("the answer</s>", "the answer"),
    ],
)
def test_marks_of_thinking_stay_where_they_are_special_tokens(whole: str, text: str) -> None:
    """Without them a draft could not be told from the answer."""
    processor = SimpleNamespace(
        decode=lambda tokens, skip_special_tokens: "the answer" if skip_special_tokens else whole
    )
    assert _text(processor, None) == text
