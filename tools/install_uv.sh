#!/bin/sh
# Put uv into .tools/, which needs pip but neither root nor a writable system Python.
set -eu
python=$1
if "$python" -m venv .tools 2>/dev/null; then
    .tools/bin/pip install --quiet uv
else # Debian without python3-venv
    "$python" -m pip install --quiet --prefix .tools --ignore-installed uv
fi
