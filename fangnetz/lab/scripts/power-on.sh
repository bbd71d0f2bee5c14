#!/bin/bash
# Switch a lab host on: power-on.sh HOST_FOLDER. Builds its namespaces and links anew and starts its init.
# Never touches a host that is on.
set -eu
dir=$1
scripts=$(dirname "$0")
. "$scripts/common.sh"
. "$dir/env"

exec 9>"$dir/lock"
flock 9
if host_is_on "$dir"; then
    echo "$EPOCHREALTIME"
    exit 0
fi
"$scripts/power-off.sh" "$dir" --locked >/dev/null

echo "$EPOCHREALTIME"
ip netns add "$NS"
ip -n "$SWITCH" -batch - <<END
link add c-$NODE type veth peer name cluster address $CLUSTER_MAC netns $NS
link add s-$NODE type veth peer name storage address $STORAGE_MAC netns $NS
link set c-$NODE master cluster
link set s-$NODE master storage
END
ip -n "$NS" -batch - <<END
link set lo up
addr add $CLUSTER_ADDRESS dev cluster
addr add $STORAGE_ADDRESS dev storage
link set cluster up
link set storage up
END
"$scripts/wire.sh" "$LAB" "$NODE" cluster "c-$NODE" >/dev/null
"$scripts/wire.sh" "$LAB" "$NODE" storage "s-$NODE" >/dev/null

# A host's own niceness is nobody's heritage: a BMC that switches it on runs at another.
renice -n 0 -p $$ >/dev/null 2>&1 || true
# Nothing of ours may stay open in the host: a BMC's socket held there would outlive the BMC.
setsid env -i PATH="$PATH" LANG=C.UTF-8 HOME=/root FANGNETZ_LAB_PROCESS="$NAME:$NODE:init" \
    nsenter --net="/run/netns/$NS" unshare --mount --pid --fork --kill-child --uts --ipc \
    /bin/bash "$scripts/host-init.sh" "$dir" </dev/null >>"$dir/log/init.log" 2>&1 9>&- &
for _ in {1..500}; do
    host_is_on "$dir" && exit 0
    sleep 0.01
done
echo "the init of $NODE did not start; see $dir/log/init.log" >&2
exit 1
