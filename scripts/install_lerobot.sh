#!/usr/bin/env bash
# Make .venv-lerobot: an environment with LeRobot, only to check GRAPE's reader against data that LeRobot writes.
#
# Release 0.4.4 writes LeRobotDataset v3.0. Release 0.3.3, the last that writes v2.1, lies beside it in the folder v21 with
# the older `datasets` that it needs; PYTHONPATH chooses it.
#
# Environment:
#   PYTHON        interpreter to use; default: that of .venv.
#   LEROBOT_VENV  where the environment is; default: .venv-lerobot.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${LEROBOT_VENV:-.venv-lerobot}
LIST=requirements/lerobot.txt
STAMP=$VENV/.lerobot-installed

key=$(cat "$LIST" scripts/install_lerobot.sh | sha256sum | cut -d' ' -f1)
if [ "$(cat "$STAMP" 2>/dev/null)" = "$key" ]; then
  exit 0
fi
if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
  rm -rf "$VENV"
  "${PYTHON:-.venv/bin/python}" -m venv "$VENV"
fi
pip=("$VENV/bin/python" -m pip --disable-pip-version-check)
release=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' requirements/recorded.txt)
echo "install: LeRobot 0.4.4 and 0.3.3 into $VENV (1.4 GB with a CPU build of torch, takes minutes)"
"${pip[@]}" install --quiet --quiet "torch==$release+cpu" 2>/dev/null || "${pip[@]}" install --quiet "torch==$release"
"${pip[@]}" install --quiet -r "$LIST"
"${pip[@]}" install --quiet --no-deps lerobot==0.4.4
"${pip[@]}" install --quiet --no-deps --upgrade --target "$VENV/v21" lerobot==0.3.3 datasets==3.6.0
echo "$key" >"$STAMP"
