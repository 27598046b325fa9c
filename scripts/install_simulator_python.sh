#!/usr/bin/env bash
# Make .venv-sim: a second environment with an old numpy, as simulators need that cannot live beside ours (--env-python).
#
# The tests run workers in it, with a stand-in for the simulator: the oldest Python that is there and numpy 1.26. For the
# original SimplerEnv see docs/simpler-original.md. Only those tests need it, so that where it cannot be made (no network,
# above all) this warns, leaves nothing behind and succeeds: everything else goes on, and the next run tries again.
#
# Environment:
#   SIM_PYTHON  interpreter to use; default: the oldest of 3.9 to 3.12 that is found.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv-sim
LIST=requirements/simulator.txt
STAMP=$VENV/.installed

fits() {  # is "$1" a Python >= 3.9, < 3.13 (the last with wheels of numpy 1.26 is 3.12) that makes virtual environments?
  "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 9) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1
}

find_python() {
  local version candidate
  if [ -n "${SIM_PYTHON:-}" ]; then
    if fits "$SIM_PYTHON"; then echo "$SIM_PYTHON"; return 0; fi
    echo "install: SIM_PYTHON=$SIM_PYTHON is no Python >= 3.9, < 3.13 with the venv module." >&2
    return 1
  fi
  for version in 3.9 3.10 3.11 3.12; do
    for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/"python$version" .venv/bin/"python$version"; do
      if fits "$candidate"; then echo "$candidate"; return 0; fi
    done
  done
  return 1
}

if cmp -s "$LIST" "$STAMP" && "$VENV/bin/python" -c 'import numpy' >/dev/null 2>&1; then
  exit 0
fi
if ! python=$(find_python); then
  echo "install: no Python 3.9 to 3.12 for $VENV; tests of workers in another interpreter will be skipped." >&2
  exit 0
fi
echo "install: $VENV with $("$python" --version) and numpy 1.26, for tests of workers in another interpreter"
log=$(mktemp)
# Also where it is killed: an environment without its stamp is of no use.
trap 'rm -f "$log"; cmp -s "$LIST" "$STAMP" || rm -rf "$VENV"' EXIT
rm -rf "$VENV"
# Few retries: without a network every run of make comes by here.
if "$python" -m venv "$VENV" >"$log" 2>&1 \
  && "$VENV/bin/python" -m pip --disable-pip-version-check --retries 1 install --quiet --requirement "$LIST" >"$log" 2>&1; then
  cp "$LIST" "$STAMP"
else
  {
    tail -n 3 "$log"
    echo "install: $VENV could not be made; tests of workers in another interpreter will be skipped, nothing else needs it."
    echo "  -> where pip reaches a package index: bash scripts/install_simulator_python.sh"
  } >&2
fi
