# Sourced by the other shell scripts: makes a virtual environment, again whenever the requirements or the C sources change, and
# changes to the project's top folder. $python is then the interpreter. A script may set $venv, $constraints and $extras
# before, for another environment, or in place of $extras the arguments of pip install: $install.
set -eu
cd "$(dirname "$0")/.."

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed and was not found. Install it, or set PYTHON to its path." >&2
    return 1
}

venv=${venv:-.venv} constraints=${constraints:-constraints.txt} extras=${extras:-test,demo,docs}
install=${install:--e .[$extras]}
python=$venv/bin/python
wanted="$(cat pyproject.toml "$constraints" setup.py wds_real/image/*.c | cksum)"
if [ "$(cat "$venv/wds_real.stamp" 2>/dev/null)" != "$wanted" ]; then
    base=$(find_python)
    echo "setting up $venv (once) ..." >&2
    rm -rf "$venv"
    "$base" -m venv "$venv" || { echo "$base cannot make a virtual environment: on Debian, install python3-venv." >&2; exit 1; }
    # shellcheck disable=SC2086 # several words
    "$python" -m pip install --quiet --disable-pip-version-check -c "$constraints" $install
    echo "$wanted" > "$venv/wds_real.stamp"
fi
