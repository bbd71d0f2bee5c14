#!/bin/bash
# Keep one service up: supervise.sh LAB NODE ROLE LOG_FOLDER COMMAND... starts it again one second after it ended.
# The environment marks whose process it is. Logs are bounded: one old file of at most 16 MiB beside the current one.
set -u
log=$4/$3.log
export FANGNETZ_LAB_PROCESS="$1:$2:$3"
shift 4
cd /
while :; do
    if [ -e "$log" ] && [ "$(stat -c %s "$log")" -gt 16777216 ]; then mv -f "$log" "$log.old"; fi
    "$@" </dev/null >>"$log" 2>&1
    echo "$(date -u +%FT%TZ) ended with $?; starting again" >>"$log"
    sleep 1
done
