#!/usr/bin/env bash
# Make .venv-tf: an environment with TensorFlow and TensorFlow Datasets, only to check GRAPE's exports against them.
#
# Environment:
#   PYTHON   interpreter to use; default: that of .venv.
#   TF_VENV  where the environment is; default: .venv-tf.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${TF_VENV:-.venv-tf}
LIST=requirements/tensorflow.txt
STAMP=$VENV/.tensorflow-installed

if cmp -s "$LIST" "$STAMP"; then
  exit 0
fi
if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
  rm -rf "$VENV"
  "${PYTHON:-.venv/bin/python}" -m venv "$VENV"
fi
echo "install: TensorFlow and TensorFlow Datasets into $VENV (1.8 GB, takes minutes)"
"$VENV/bin/python" -m pip --disable-pip-version-check install --quiet -r "$LIST"
cp "$LIST" "$STAMP"
