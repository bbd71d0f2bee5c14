# What the lab's scripts share. Sourced by bash; starts and stops nothing by itself.

# started_at PID: the kernel's start time of a living process; fails for a dead one. PID and start time together
# name one process for ever, so a number used again is never taken for ours.
started_at() {
    local line
    read -r line 2>/dev/null <"/proc/$1/stat" || return 1
    line=${line##*) }
    # shellcheck disable=SC2086
    set -- $line
    case $1 in Z | X) return 1 ;; esac
    printf '%s\n' "${20}"
}

# host_is_on DIR: does the init of this host's present boot really live? Sets `init`.
host_is_on() {
    local start
    read -r init start 2>/dev/null <"$1/init.pid" || return 1
    [ "$(started_at "$init")" = "$start" ]
}
