#!/bin/sh
# make-venv.sh VENV PYTHON VERSION...: a virtual environment of PYTHON (empty: none was found), which must be of one of
# these versions. An environment that is there already makes room.
set -eu
venv=$1 python=$2
shift 2

fail() {
    echo "make: $1" >&2
    exit 2
}

[ -n "$python" ] || fail "found no Python of the versions $*. Install one, or name one with PYTHON=/its/path"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    fail "PYTHON=$python does not start. Name a Python of the versions $*"
case " $* " in
    *" $version "*) ;;
    *) fail "PYTHON=$python is Python $version, and has to be of the versions $*" ;;
esac
if [ -e "$venv/pyvenv.cfg" ]; then
    echo "make: $venv is made anew with Python $version"
    rm -rf "$venv"
fi
"$python" -m venv "$venv"
