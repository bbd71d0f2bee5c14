#!/bin/bash
# What the BMC simulator runs to read and switch a lab host's power: chassis.sh (get|set) WHAT [VALUE].
# Tells the truth (does the host's init live?) unless the BMC was told to lie. Its folder holds `env` and `mode`.
set -u
bmc=$(dirname "$0")
. "$bmc/env" # HOST_FOLDER, SCRIPTS
. "$SCRIPTS/common.sh"

mode=ok
read -r mode 2>/dev/null <"$bmc/mode" || true
[ "$mode" = slow ] && sleep 8
case $1.$2 in
get.power)
    if [ ! -e "$bmc/lied" ] && host_is_on "$HOST_FOLDER"; then echo power:1; else echo power:0; fi
    ;;
set.power)
    echo "$EPOCHREALTIME $3 $mode" >>"$bmc/power.log"
    # The simulator's sockets must not live on in what is started here.
    for fd in /proc/$$/fd/*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || [ "$fd" = 255 ] || eval "exec $fd>&-"
    done
    if [ "$3" = 0 ] && [ "$mode" = lying ]; then
        : >"$bmc/lied"
    elif [ "$3" = 0 ]; then
        "$SCRIPTS/power-off.sh" "$HOST_FOLDER" >/dev/null 2>>"$bmc/chassis.log"
    else
        rm -f "$bmc/lied"
        "$SCRIPTS/power-on.sh" "$HOST_FOLDER" >/dev/null 2>>"$bmc/chassis.log"
    fi
    ;;
get.*) echo "$2:0" ;;
set.reset)
    [ "$mode" = lying ] || {
        "$SCRIPTS/power-off.sh" "$HOST_FOLDER" >/dev/null 2>>"$bmc/chassis.log"
        "$SCRIPTS/power-on.sh" "$HOST_FOLDER" >/dev/null 2>>"$bmc/chassis.log"
    }
    ;;
esac
exit 0
