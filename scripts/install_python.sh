#!/usr/bin/env bash
# Make .venv: a virtual environment with GRAPE (editable), all extras and PyTorch.
#
# Repeatable: returns at once when nothing that matters changed since the last complete installation, fixes a broken
# or half-made environment, and never exchanges a torch that is already there for another build of it.
#
# Environment:
#   PYTHON       interpreter to use; default: the first of python3.11, python3, python3.12, python3.13 that fits.
#   TORCH        release of torch; default: the one in requirements/recorded.txt.
#   TORCH_INDEX  where to take torch from: the address of an index of one build (CPU, a release of CUDA), as PyTorch's
#                page on installing names them. Default: the indexes that pip is configured with; the CPU build if
#                one of them has it, else what they give. PyPI's default build for Linux is a CUDA build of several
#                GB, which computes on a CPU just as well; where pip's index has no other, the installation takes those
#                GB and their time on top.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
STAMP=$VENV/.grape-installed
RECORDED=requirements/recorded.txt

say() { echo "install: $*"; }

fits() {  # is "$1" a Python >= 3.11, < 3.14 that can make virtual environments?
  "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    if fits "$PYTHON"; then echo "$PYTHON"; return 0; fi
    echo "install: PYTHON=$PYTHON is no Python >= 3.11, < 3.14 with the venv module." >&2
    return 1
  fi
  for candidate in python3.11 python3 python3.12 python3.13; do
    if fits "$candidate"; then echo "$candidate"; return 0; fi
  done
  return 1
}

# What an installation depends on; the folder's path is part of it because an editable installation points there.
key=$({ pwd; cat pyproject.toml "$RECORDED" scripts/install_python.sh; } | sha256sum | cut -d' ' -f1)
if [ -z "${TORCH:-}${TORCH_INDEX:-}" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$key" ] \
  && "$VENV/bin/python" -c 'import grape' >/dev/null 2>&1; then
  exit 0
fi

if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
  if ! python=$(find_python); then
    if [ -z "${PYTHON:-}" ]; then
      NEED_PYTHON_VENV=1 bash scripts/install_system_packages.sh
      python=$(find_python) || python=
    fi
    if [ -z "${python:-}" ]; then
      echo "install: no Python >= 3.11, < 3.14 with the venv module was found." >&2
      echo "  -> install one (Debian 12: sudo apt-get install python3 python3-venv) or name it: make install PYTHON=/path/to/python" >&2
      exit 1
    fi
  fi
  say "virtual environment $VENV with $("$python" --version)"
  rm -rf "$VENV"
  "$python" -m venv "$VENV"
fi
rm -f "$STAMP"
pip=("$VENV/bin/python" -m pip --disable-pip-version-check)
torch_version() { "$VENV/bin/python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true; }

release=${TORCH:-$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$RECORDED")}
installed=$(torch_version)
if [[ -z $installed || -n ${TORCH_INDEX:-} || (-n ${TORCH:-} && ${installed%%+*} != "$release") ]]; then
  say "torch $release${TORCH_INDEX:+ from $TORCH_INDEX}"
  if [ -n "${TORCH_INDEX:-}" ]; then
    "${pip[@]}" install --quiet --quiet --force-reinstall --index-url "$TORCH_INDEX" "torch==$release"
  elif ! "${pip[@]}" install --quiet --quiet "torch==$release+cpu" 2>/dev/null; then
    "${pip[@]}" install --quiet --quiet "torch==$release"
  fi
  installed=$(torch_version)
fi

say "GRAPE with all extras, beside torch $installed (with a CPU build 4.7 GB and a few minutes the first time)"
# Naming the installed build keeps pip from exchanging it for another one.
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
{ grep -v '^torch==' "$RECORDED"; echo "torch==$installed"; } >"$constraints"
"${pip[@]}" install --quiet --quiet --constraint "$constraints" --editable '.[dev]'
"${pip[@]}" check >/dev/null || "${pip[@]}" check >&2
"$VENV/bin/python" -c 'import grape, torch'
echo "$key" >"$STAMP"
say "done: $VENV/bin/grape"
