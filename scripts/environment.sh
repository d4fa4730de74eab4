# Sourced by quickstart and test: make a virtual environment once and install dfolora into it, versions pinned.
# Usage: environment FOLDER [EXTRA]; afterwards $python is the interpreter in it.

environment() {
  folder=$1
  extra=${2:-}
  base=${PYTHON:-}
  if [ -z "$base" ]; then
    for base in python3.12 python3.11 python3.13 python3; do
      command -v "$base" >/dev/null 2>&1 && "$base" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
      base=
    done
  fi
  if [ -z "$base" ]; then
    echo "the pinned versions need Python 3.11 or newer with venv (Debian: apt-get install python3-venv); or set PYTHON to one" >&2
    exit 2
  fi
  python=$folder/bin/python
  # The stamp is what was installed: a new constraint or a changed setup.cfg installs again, an old environment is kept.
  stamp=$(cat setup.cfg pyproject.toml scripts/constraints.txt | cksum)-$extra
  if [ "$(cat "$folder/.installed" 2>/dev/null)" != "$stamp" ]; then
    echo "installing into $folder (a few minutes the first time)" >&2
    [ -x "$python" ] || "$base" -m venv "$folder"
    "$python" -m pip install --quiet --disable-pip-version-check --constraint scripts/constraints.txt --editable ".$extra"
    echo "$stamp" >"$folder/.installed"
  fi
}
