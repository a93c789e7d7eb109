#!/usr/bin/env bash
# Sees to the parts that pip cannot install. For each part named: there already, or installed by apt where that is allowed
# (MAY_INSTALL=yes or CI=true, and root or sudo without a password), or else named together with the way to get it.
#
#   scripts/system_parts.sh PART...       with PART one of those in KNOWN
set -euo pipefail

PYTHON=${PYTHON:-python3}
KNOWN="venv gcc chromium node redis prometheus"

is_there() {
    case $1 in
        venv) "$PYTHON" -c 'import ensurepip, venv' ;;
        gcc) command -v gcc && echo '#include <stdio.h>' | gcc -E -o /dev/null - ;;
        chromium) command -v chromium || command -v chromium-browser || command -v google-chrome ;;
        node) command -v node && command -v npm ;;
        redis) command -v redis-server ;;
        prometheus) command -v prometheus && command -v promtool ;;
    esac >/dev/null 2>&1
}

packages_of() {
    case $1 in
        venv) if [ "$PYTHON" = python3 ]; then echo python3-venv; else echo "$(basename "$PYTHON")-venv"; fi ;;
        gcc) echo gcc libc6-dev ;;
        node) echo nodejs npm ;;
        redis) echo redis-server ;;
        *) echo "$1" ;;
    esac
}

missing=()
packages=()
for part in "$@"; do
    case " $KNOWN " in
        *" $part "*) ;;
        *) echo "system_parts.sh knows no part named $part, only: $KNOWN" >&2; exit 2 ;;
    esac
    if ! is_there "$part"; then
        missing+=("$part")
        read -r -a names <<<"$(packages_of "$part")"
        packages+=("${names[@]}")
    fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo -n)
if [ "${MAY_INSTALL:-}" = yes ] || [ "${CI:-}" = true ]; then
    if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
        echo "Installing ${packages[*]}"
        "${as_root[@]}" apt-get -qq update
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
        exit 0
    fi
fi
{
    echo "Missing on this machine: ${missing[*]}"
    if command -v apt-get >/dev/null; then
        echo "Get it with: sudo apt-get install ${packages[*]}"
    else
        echo "Install the packages that hold it; on Debian and Ubuntu they are called: ${packages[*]}"
    fi
} >&2
exit 1
