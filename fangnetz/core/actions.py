"""What a decision asks the engine to do: small values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from fangnetz.core.detector import Verdict
from fangnetz.core.model import Binding, HostDoc, HostRecord, OffProof, PauseDoc, VmDoc, VmRecord, Wish
from fangnetz.core.operations import Facts, Operation, OperationState
from fangnetz.core.units import DeviceName, Epoch, Generation, HostId, Instant, OperationId, VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class PutHost:
    """Write a host's record."""

    record: HostRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PutVm:
    """Write a VM's record if its generation is still `expected`; never changes an owner to start something."""

    record: VmRecord
    expected: Generation | None
    """None: only if there is no record yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetVm:
    """Drop a VM's record and definition; a copy that runs goes on running."""

    vm: VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetRecord:
    """Drop a VM's record that cannot be read; its definition stays."""

    vm: VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class PutVmDoc:
    doc: VmDoc


@dataclass(frozen=True, slots=True, kw_only=True)
class Define:
    """Write definitions that the cluster file brought in, changed or dropped, all at once."""

    docs: tuple[VmDoc, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PutHostDoc:
    doc: HostDoc


@dataclass(frozen=True, slots=True, kw_only=True)
class PutPause:
    """Write that the whole cluster is paused, or is not any more."""

    doc: PauseDoc


@dataclass(frozen=True, slots=True, kw_only=True)
class Remember:
    """Write a binding to files and store."""

    binding: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberProof:
    """Write a proof, or that it is void, to files and store."""

    proof: OffProof


@dataclass(frozen=True, slots=True, kw_only=True)
class AskPower:
    """Ask a host's fence devices for their status, read-only."""

    host: HostId
    devices: tuple[DeviceName, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOperation:
    operation: Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptOperation:
    """Take over an operation a former holder of the control lease left open."""

    id: OperationId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class EndOperation:
    """Close an operation from outside its steps: nothing of it may start any more."""

    id: OperationId
    state: OperationState
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleWish:
    wish: Wish
    granted: bool
    sentence: str
    operation: OperationId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A standing condition that a person should know of. Same kind and subject = same alarm."""

    kind: str
    subject: str
    sentence: str
    highest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """An event for the log: one sentence and the facts behind it."""

    kind: str
    subject: str
    sentence: str
    facts: Facts


Action = (
    PutHost
    | PutVm
    | ForgetVm
    | ForgetRecord
    | PutVmDoc
    | Define
    | PutHostDoc
    | PutPause
    | Remember
    | RememberProof
    | AskPower
    | OpenOperation
    | AdoptOperation
    | EndOperation
    | SettleWish
    | Happened
)

Granting = tuple[list[Action], str, OperationId | None]
"""What granting a wish comes to: what is done, a sentence for whoever wished, and the operation that carries it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Everything one tick decided. Without further news nothing is due before `next_due`."""

    actions: tuple[Action, ...]
    verdicts: tuple[Verdict, ...]
    alarms: tuple[Alarm, ...]
    next_due: Instant | None
