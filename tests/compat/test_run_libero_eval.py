import shlex

import pytest
import tyro

from grape.compat.libero_flags import parse_flags, translate
from grape.compat.run_libero_eval import main
from grape.core.errors import SettingsError
from grape.evaluation import EvaluateSettings
from grape.evaluation.protocols import apply_protocol

# The call in OpenVLA's and the first public implementation's instructions.
PUBLISHED = shlex.split(
    "--model_family openvla --pretrained_checkpoint openvla/openvla-7b-finetuned-libero-spatial"
    " --task_suite_name libero_spatial --center_crop True"
)


def settings_of(*more: str, further: tuple[str, ...] = (), keys: tuple[str, ...] = ()) -> EvaluateSettings:
    call = translate(parse_flags([*PUBLISHED, *more]), further, lambda policy: keys)
    return tyro.cli(EvaluateSettings, args=list(call.arguments))


def test_the_published_call_is_the_protocol() -> None:
    settings, protocol = apply_protocol(settings_of())
    assert protocol is not None
    assert (settings.suite, settings.protocol) == ("libero_spatial", "libero-openvla-v1")
    assert settings.policy == "openvla/openvla-7b-finetuned-libero-spatial"
    assert (settings.center_crop, settings.seed, settings.initial_states) == ("yes", 7, "0-49")
    assert settings_of("--num_trials_per_task", "50", "--seed", "7") == settings_of()
    assert "--center-crop" not in translate(parse_flags(PUBLISHED[:-2])).arguments


def test_fewer_trials_or_another_seed_are_not_the_protocol_any_more() -> None:
    keys = ("libero_spatial_no_noops", "libero_goal")
    settings, protocol = apply_protocol(settings_of("--num_trials_per_task", "10", "--center_crop", "False", keys=keys))
    assert protocol is None
    assert (settings.initial_states, settings.seed, settings.center_crop) == ("0-9", 7, "no")
    assert settings.unnorm_key == "libero_spatial_no_noops"
    assert apply_protocol(settings_of("--seed", "1"))[0].seed == 1


def test_folders_bits_and_what_follows() -> None:
    settings = settings_of(
        "--local_log_dir", "logs", "--run_id_note", "again", "--load_in_4bit", "True", further=("--workers", "3")
    )
    assert str(settings.out) == "logs/EVAL-libero_spatial-openvla-7b-finetuned-libero-spatial-again"
    assert settings.load_in_4bit
    assert settings.workers == 3
    notes = " ".join(translate(parse_flags([*PUBLISHED, "--use_wandb", "True"])).notes)
    assert "nothing is sent anywhere" in notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--task_suite_name libero_spacial", "Unknown task_suite_name 'libero_spacial'"),
        ("--num_steps_wait 0", "wait 10 steps"),
        ("--num_trials_per_task 60", "has 50 initial states"),
        ("--load_in_8bit True", "--load_in_8bit cannot be used"),
        ("--model_family octo", "--model_family octo cannot be used"),
        ("--pretrained_checkpoint x--image_aug --center_crop False", "trained with augmentation"),
        ("--center_crop maybe", "must be True or False"),
        ("--suite libero_goal", "Unknown flag '--suite'"),
    ],
)
def test_what_cannot_be_done_is_refused(change: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        translate(parse_flags([*PUBLISHED, *change.split()]))


def test_it_prints_the_command_and_runs_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr("grape.cli.main.main", lambda words: ran.append(words) or 0)
    assert main([*PUBLISHED, "--", "--dry-run"]) == 0
    assert shlex.split(capsys.readouterr().out) == ["grape", *ran[0]]
    assert ran[0][-1] == "--dry-run"
    assert main(["--task_suite_name", "libero_goal"]) == 2
    assert "--pretrained_checkpoint is missing" in capsys.readouterr().err
