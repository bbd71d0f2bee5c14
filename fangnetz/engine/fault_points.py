"""Every fault point of the product, by name, with one sentence: what has happened there and what has not yet.

A table and nothing else. `faults` makes a process fail at a point; a test walks the source and keeps this table and
the code equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fangnetz.core.operations import StepKind

STEP_NAMES: Mapping[StepKind, str] = {
    StepKind.CONFIRM: "confirm",
    StepKind.FENCE: "fence",
    StepKind.PROVE: "prove",
    StepKind.PLAN: "plan",
    StepKind.START: "start",
    StepKind.SEE_RUNNING: "running",
    StepKind.STOP: "stop",
    StepKind.PAUSE: "pause",
    StepKind.PLAN_MOVE: "plan_move",
    StepKind.PREPARE: "prepare",
    StepKind.MIGRATE: "migrate",
    StepKind.HAND_OVER: "hand_over",
    StepKind.RESUME: "resume",
    StepKind.POWER_ON: "power_on",
    StepKind.CLOSE: "close",
}
"""How each kind of step is called in its points; the subject is the order's VM, else the operation's subject."""

STEP_STAGES: Mapping[str, str] = {
    "before_claim": "the message has come; the line in the journal is not claimed yet",
    "claimed": "the line is claimed; nothing is done yet",
    "before_renew": "the lease is about to be extended, by its keeper or right before an effect",
    "renewed": "the lease is extended; the effect that asked for it has not happened yet",
    "before_settle": "the work is done; its outcome is not written yet",
    "settled": "the outcome is written; nobody was told and nothing that follows was sent",
    "before_hand_on": "all is written; what follows is about to be sent",
    "handed_on": "what follows is sent, or the tick nudged; the message is not finished yet",
}
"""Every step passes these, in this order; `before_renew` and `renewed` as often as its lease is extended."""

EFFECTS: Mapping[str, str] = {
    "fence.before_cut": "all gates were read again and the lease confirmed; the off command is not sent yet",
    "fence.sent": "the off command was sent; the plug is not read back yet",
    "power_on.before_switch": "the lease is confirmed; the on command is not sent yet",
    "power_on.switched": "the on command was sent; the plug is not read back yet",
    "start.before_create": "libvirt was asked all it is asked and the lease confirmed; the VM is not created yet",
    "start.created": "libvirt created the VM; nobody knows yet",
    "stop.before_shutdown": "the guest is not asked to switch off yet",
    "stop.shut_down": "the guest was asked to switch off",
    "stop.before_destroy": "the lease is confirmed; the VM is not switched off yet",
    "stop.destroyed": "the VM is switched off; the release is not promised yet",
    "pause.before_suspend": "two copies run by fresh reports and the lease is confirmed; none is paused yet",
    "pause.suspended": "the later copy is paused; nobody knows yet",
    "migrate.before_send": "libvirt was asked all it is asked and the lease confirmed; no memory is sent yet",
    "migrate.left": "the VM has left this host; the release is not promised yet",
    "resume.before_resume": "the copy that arrived is found and the lease confirmed; it does not run yet",
    "resume.resumed": "the copy runs; nobody knows yet",
}
"""What is done to the world. The subject is the host for power, the VM for the rest."""


@dataclass(frozen=True, slots=True)
class Call:
    """The points around one call of a port: `before` it is made, `after` it returned and changed something."""

    before: str
    after: str
    what: str
    """What the call does, as in `… is about to be written` and `… is written`."""
    done: str = "written"
    asks: bool = False
    """Its answer may be no (False, None): then nothing has changed, and `after` is not met."""

    @property
    def sentences(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Return both points, each with its sentence."""
        return (
            (self.before, f"{self.what} is about to be {self.done}"),
            (self.after, f"{self.what} is {self.done}; its caller does not know yet"),
        )


STORE_CALLS: Mapping[str, Call] = {
    "meet": Call("life.before_meet", "life.met", "the store's present life", "registered"),
    "take_lease": Call("lease.before_take", "lease.taken", "the control lease", "taken or renewed", asks=True),
    "drop_lease": Call("lease.before_drop", "lease.dropped", "the control lease", "given back"),
    "put_watch": Call("watch.before_put", "watch.put", "what a controller has watched so far"),
    "put_files": Call("files.before_put", "files.put", "which cluster file a controller reads"),
    "put_heartbeat": Call("heartbeat.before_put", "heartbeat.put", "a host's heartbeat"),
    "put_probe_round": Call("probe.before_put", "probe.put", "a round of probes"),
    "put_reading": Call("reading.before_put", "reading.put", "a fence device's answer"),
    "put_host": Call("host.before_put", "host.put", "a host's record", asks=True),
    "put_vm": Call("vm.before_put", "vm.put", "a VM's record", asks=True),
    "mark_vm": Call("vm.before_mark", "vm.marked", "a VM's state", asks=True),
    "forget_vm": Call("vm.before_forget", "vm.forgotten", "a VM's record", "removed"),
    "open_operation": Call("operation.before_open", "operation.opened", "a new operation", asks=True),
    "mark_dispatched": Call("operation.before_mark", "operation.marked", "when steps were sent"),
    "adopt_operation": Call("operation.before_adopt", "operation.adopted", "an operation's new epoch"),
    "end_operation": Call("operation.before_end", "operation.ended", "an operation's end"),
    "give_up": Call("step.before_give_up", "step.given_up", "the end of an order nobody answered", asks=True),
    "archive": Call("journal.before_archive", "journal.archived", "the bound on closed operations", "kept"),
    "log": Call("events.before_log", "events.logged", "what happened", "logged"),
    "put_alarms": Call("alarms.before_put", "alarms.put", "the list of alarms"),
    "put_ledger": Call("ledger.before_store", "ledger.in_store", "a versioned document", "put into the store"),
    "settle_wish": Call("wish.before_settle", "wish.settled", "the answer to a wish"),
    "add_wish": Call("wish.before_add", "wish.added", "an operator's wish"),
}
"""Writes of `ports.Store` and `ports.Operators`; what a step writes of itself has its stages instead."""

STEP_WRITES = frozenset({"claim", "renew", "settle"})
"""Writes of `ports.Journal` that the executor makes, each between two stages of its step."""

DISPATCHER_CALLS: Mapping[str, Call] = {
    "dispatch": Call("operation.before_dispatch", "operation.dispatched", "a chain of steps", "sent"),
    "ask_power": Call("power.before_ask", "power.asked", "a question for a host's power", "sent"),
    "nudge": Call("tick.before_nudge", "tick.nudged", "a call for the next tick", "sent"),
}
FILE_CALLS: Mapping[str, Call] = {
    "write": Call("ledger.before_files", "ledger.in_files", "a versioned document", "put into this machine's files"),
}
BOOT_CALLS: Mapping[str, Call] = {
    "release": Call("promise.before_write", "promise.written", "the promise never to start a generation again"),
    "note_start": Call("start_note.before_write", "start_note.written", "the note that a start is being sent"),
    "forget_start": Call("start_note.before_remove", "start_note.removed", "the note of a start that ended", "removed"),
}

POINTS: Mapping[str, str] = {
    **{f"{name}.{stage}": text for name in STEP_NAMES.values() for stage, text in STEP_STAGES.items()},
    **EFFECTS,
    **{
        point: text
        for calls in (STORE_CALLS, DISPATCHER_CALLS, FILE_CALLS, BOOT_CALLS)
        for call in calls.values()
        for point, text in call.sentences
    },
}
"""Point -> sentence, all of them."""
