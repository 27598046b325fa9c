"""Completion of verbs and flags for bash, zsh and fish, generated from the settings classes."""

from collections.abc import Mapping, Sequence

from grape.core.errors import require_known

__all__ = ["SHELLS", "completion_script"]

SHELLS = ("bash", "zsh", "fish")


def completion_script(shell: str, words: Mapping[str, Sequence[str]]) -> str:
    """A script to be sourced by a shell.

    Args:
        shell: One of :data:`SHELLS`.
        words: What can follow each beginning of a command line: ``""`` for the verbs, a verb for its kinds or flags,
            verb and kind for a kind's flags.

    Raises:
        SettingsError: The shell is unknown.
    """
    require_known("shell", shell, SHELLS)
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](words)


def _bash(words: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(
        f"    {_pattern(beginning, choices)}) choices={_quoted(' '.join(choices))} ;;"
        for beginning, choices in sorted(words.items(), key=lambda item: -len(item[0].split()))
    )
    return f"""\
# bash completion of grape: source <(grape completion bash)
_grape() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" beginning="" choices="" word
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    [[ $word == -* ]] && break
    beginning="${{beginning:+$beginning }}$word"
  done
  case "$beginning" in
{cases}
    *) ;;
  esac
  COMPREPLY=($(compgen -W "$choices" -- "$current"))
  [[ ${{#COMPREPLY[@]}} -eq 0 ]] && compopt -o default
}}
complete -F _grape grape
"""


def _zsh(words: Mapping[str, Sequence[str]]) -> str:
    return (
        "# zsh completion of grape: source <(grape completion zsh)\nautoload -U +X bashcompinit && bashcompinit\n"
        + _bash(words)
    )


def _fish(words: Mapping[str, Sequence[str]]) -> str:
    lines = ["# fish completion of grape: grape completion fish | source"]
    for beginning, choices in words.items():
        parts = beginning.split()
        conditions = " ; and ".join(f"__fish_seen_subcommand_from {part}" for part in parts) or "__fish_use_subcommand"
        for choice in choices:
            what = f"-l {choice[2:]}" if choice.startswith("--") else f"-a {choice}"
            lines.append(f"complete -c grape -n {_quoted(conditions)} {what}")
    return "\n".join(lines) + "\n"


def _pattern(beginning: str, choices: Sequence[str]) -> str:
    """Flags may follow further words, e.g. a positional; verbs and kinds only their own beginning."""
    further = bool(beginning) and all(choice.startswith("-") for choice in choices)
    return f"{_quoted(beginning)}|{_quoted(beginning + ' ')}*" if further else _quoted(beginning)


def _quoted(text: str) -> str:
    return f"'{text}'"
