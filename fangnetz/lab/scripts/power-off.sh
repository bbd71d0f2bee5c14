#!/bin/bash
# Pull the plug of a lab host: power-off.sh HOST_FOLDER. Harmless when it is off.
# First its links, so that nobody hears a farewell a dead machine would not send; then everything on it.
# The namespace goes too: one without processes still answers ping, and bytes queued in it would leave later.
set -eu
dir=$1
. "$(dirname "$0")/common.sh"
. "$dir/env"

if [ "${2:-}" != --locked ]; then
    exec 9>"$dir/lock"
    flock 9
fi
echo "$EPOCHREALTIME"
ip -n "$SWITCH" -force -batch - >/dev/null 2>&1 <<END || true
link set c-$NODE down
link set s-$NODE down
END
if host_is_on "$dir"; then
    kill -9 "$init"
    for _ in {1..1500}; do
        host_is_on "$dir" || break
        sleep 0.01
    done
fi
rm -f "$dir/init.pid" "$LAB/frozen/$NODE"
if [ -e "/run/netns/$NS" ]; then
    # Nothing should be left by now; what is left in the host's own network namespace is the host's.
    left=$(ip netns pids "$NS" 2>/dev/null || true)
    # shellcheck disable=SC2086
    [ -z "$left" ] || kill -9 $left 2>/dev/null || true
    ip -n "$SWITCH" -force -batch - >/dev/null 2>&1 <<END || true
link del c-$NODE
link del s-$NODE
END
    ip netns del "$NS"
fi
