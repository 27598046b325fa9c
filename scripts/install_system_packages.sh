#!/usr/bin/env bash
# Install what pip cannot: off-screen OpenGL for the simulators, and a browser for the report's test.
#
# Quick and silent when everything is there. Installs with apt-get where this user may (root, or sudo); otherwise says
# exactly what is missing and leaves with 0, because scoring, pairing and reading reports need none of it.
set -euo pipefail

GL_PACKAGES=(libosmesa6 libegl1 libgl1-mesa-dri)

missing=()
add_unless_installed() {
  dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed' || missing+=("$1")
}

if ! command -v dpkg-query >/dev/null 2>&1; then
  echo "install: not a Debian-like system: make sure that OSMesa or EGL (off-screen OpenGL) is there; 'grape doctor' checks it." >&2
  exit 0
fi
for package in "${GL_PACKAGES[@]}"; do add_unless_installed "$package"; done
# Any Chromium serves the report's test, wherever it came from.
if ! command -v chromium >/dev/null 2>&1 && ! command -v chromium-browser >/dev/null 2>&1 \
  && ! command -v google-chrome >/dev/null 2>&1; then
  add_unless_installed chromium
fi
if [ -n "${NEED_PYTHON_VENV:-}" ]; then missing+=(python3 python3-venv); fi
[ "${#missing[@]}" -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  # sudo may ask for a password only where somebody can answer.
  if command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    as_root=(sudo)
  else
    as_root=(false)
  fi
fi
if [ "${as_root[*]:-}" = false ] || ! command -v apt-get >/dev/null 2>&1; then
  {
    echo "install: these system packages are missing and cannot be installed as this user: ${missing[*]}"
    echo "  -> sudo apt-get install --no-install-recommends ${missing[*]}"
    echo "     (GL libraries: without one of them no frame can be rendered; chromium: only the report's browser test needs it)"
  } >&2
  exit 0
fi

echo "install: system packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"${as_root[@]}" apt-get update -qq >"$log" 2>&1 || echo "install: apt-get update failed; trying with the lists at hand" >&2
# One at a time: a release that dropped one of them (OSMesa leaves Mesa after 25.0) still gets the others.
failed=()
for package in "${missing[@]}"; do
  # What apt says matters only where it fails.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" \
    >"$log" 2>&1 || { failed+=("$package"); tail -n 5 "$log" >&2; }
done
if [ "${#failed[@]}" -gt 0 ]; then
  echo "install: could not install ${failed[*]}; 'grape doctor' tells whether a frame can be rendered without." >&2
fi
