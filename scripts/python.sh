# Sourced by the scripts: puts pyenv's interpreters on PATH, and sets `python` to the newest that serves.

# pyenv's shims exist for versions that are not chosen, and fail: its interpreters come before them
versions="${PYENV_ROOT:-${HOME:-}/.pyenv}/versions"
for version in 3.11 3.12 3.13; do
    newest=$(ls -d "$versions/$version".*/bin 2>/dev/null | sort -V | tail -n 1 || true)
    if [ -n "$newest" ]; then PATH="$newest:$PATH"; fi
done

python=
for name in python3.13 python3.12 python3.11 python3; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$name"; break; fi
done
if [ -z "$python" ]; then
    echo "$0: wanted Python 3.11 or later on PATH, got none" >&2
    exit 1
fi
