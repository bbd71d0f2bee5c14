#!/bin/bash
# Make one switch port match what is written down about it: wire.sh LAB NODE LINK PORT.
# cuts/NODE.LINK says both, in or out (seen from the node); frozen/NODE silences the whole machine.
# A port that does not exist (its machine is off) is left for the next power-on. Prints the instant before the effect.
set -eu
lab=$1 node=$2 link=$3 port=$4
. "$lab/switch.env"

cut=none
read -r cut 2>/dev/null <"$lab/cuts/$node.$link" || true
wanted=up
if [ "$cut" = both ] || { [ -e "$lab/frozen/$node" ] && [ "$link" != bmc ]; }; then wanted=down; fi

# filter OPTION on|off: drop frames that pass the port in that direction
filter() {
    while nsenter --net="/run/netns/$SWITCH" ebtables-nft -D FORWARD "$1" "$port" -j DROP 2>/dev/null; do :; done
    [ "$2" = off ] || nsenter --net="/run/netns/$SWITCH" ebtables-nft -A FORWARD "$1" "$port" -j DROP
}
echo "$EPOCHREALTIME"
[ ! -e "$lab/filtered/$port" ] && [ "$cut" != in ] && [ "$cut" != out ] || {
    filter -o "$([ "$cut" = in ] && echo on || echo off)"
    filter -i "$([ "$cut" = out ] && echo on || echo off)"
    case $cut in in | out) : >"$lab/filtered/$port" ;; *) rm -f "$lab/filtered/$port" ;; esac
}
ip -n "$SWITCH" link set "$port" "$wanted" 2>/dev/null || [ ! -e "/run/netns/$SWITCH" ] || true
