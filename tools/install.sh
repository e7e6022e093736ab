#!/bin/sh
# Makes the virtual environment .venv and installs a locked set into it: tools/install.sh lab|dev
#
# Needs Python 3.11 or newer and nothing else. Uses uv where it is there, because it is quicker; pip otherwise. Where
# there is a folder wheelhouse/, all comes from there.
# A set that is installed already is recognised by a mark in .venv, so that the second time takes no time.
set -eu
cd "$(dirname "$0")/.."

wanted=$1
lock=requirements/$wanted.txt
venv=.venv
here=$(pwd -P)

say() { printf '%s\n' "chatlab: $*" >&2; }
stop() { say "$@"; exit 1; }

runs_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
makes_venvs() { "$1" -c 'import ensurepip, venv; ensurepip.version()' >/dev/null 2>&1; }

# Where .venv is and which Python it is for: it holds absolute paths, so that it does not survive being moved, nor an
# upgrade of the Python it was made with.
made_for() { printf '%s ' "$here" && $venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

fingerprint() { { echo "$made"; cat "requirements/$1.txt" pyproject.toml tools/install.sh; } | cksum; }
mark=$venv/.installed-$wanted

made=$(made_for || true)
if [ -f "$mark" ] && [ "$(cat "$mark")" = "$(fingerprint "$wanted")" ]; then
    exit 0
fi

uv=$(command -v uv || true)

find_python() {
    seen=
    lacking=
    for name in ${PYTHON:-python3 python python3.14 python3.13 python3.12 python3.11}; do
        command -v "$name" >/dev/null 2>&1 || continue
        if ! runs_new_enough "$name"; then
            seen="${seen:+$seen, }$name is $("$name" --version 2>&1 | sed 1q)"
        elif [ -z "$uv" ] && ! makes_venvs "$name"; then
            lacking=${lacking:-$name}
        else
            python=$name
            return
        fi
    done
    if [ -n "$uv" ]; then
        python='>=3.11' # one that uv knows of, or fetches
        return
    fi
    if [ -n "$lacking" ]; then
        version=$("$lacking" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        stop "$lacking has no venv module. On Debian or Ubuntu: sudo apt install $version-venv. Then run the same command again."
    fi
    stop "Python 3.11 or newer is needed${seen:+ ($seen)}. Install it from https://www.python.org/downloads/ or with your" \
        "system's packages, then run the same command again; PYTHON=/path/to/python3 names one that is not on PATH."
}

make_venv() {
    find_python
    say "making $venv with $("$python" --version 2>/dev/null || echo "Python $python")"
    if [ -n "$uv" ]; then
        "$uv" venv --quiet --clear --python "$python" $venv
    else
        "$python" -m venv --clear $venv
    fi
    made=$(made_for)
    echo "$made" >$venv/.made-for
}

if [ -f $venv/.made-for ] && [ "$(cat $venv/.made-for)" != "$made" ]; then
    say "the folder has moved or Python has changed since $venv was made"
    make_venv
elif ! runs_new_enough $venv/bin/python; then
    make_venv
fi

source=
if [ "$wanted" = lab ] && [ -d wheelhouse ]; then # made by `make wheelhouse`, for where there is no network
    source="--no-index --find-links wheelhouse"
fi
offline="nothing is broken: see that the network is there and run the same command again"
say "installing $(grep -c '^[a-z0-9]' "$lock") packages into $venv; this happens once and takes a minute or a few"
if [ -n "$uv" ]; then
    "$uv" pip install --python $venv/bin/python --quiet --require-hashes $source -r "$lock" || stop "not all could be installed; $offline"
    "$uv" pip install --python $venv/bin/python --quiet --no-deps --no-build-isolation --editable .
else
    pip="$venv/bin/python -m pip --disable-pip-version-check"
    $pip --version >/dev/null 2>&1 || $venv/bin/python -m ensurepip >/dev/null
    $pip install --quiet --require-hashes $source -r "$lock" || stop "not all could be installed; $offline"
    $pip install --quiet --no-deps --no-build-isolation --editable .
fi
say "installed; from now on this takes no time"
fingerprint "$wanted" >"$mark"
if [ "$wanted" = dev ]; then fingerprint lab >$venv/.installed-lab; fi # which holds all of lab
