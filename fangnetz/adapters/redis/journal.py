"""The journal on Redis: open, claim, renew, settle, archive. One Lua script each; deadlines by Redis TIME."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

import redis

from fangnetz.adapters.redis import codec
from fangnetz.adapters.redis.client import answers, reading, sound
from fangnetz.adapters.redis.codec import instant, micros
from fangnetz.adapters.redis.keys import CLOSED_MAX, EVENTS_MAX, Keys
from fangnetz.adapters.redis.scripts import NotConfirmed, Scripts
from fangnetz.core.actions import Happened
from fangnetz.core.convergence import Progress
from fangnetz.core.errors import Conflict, Paused, StaleToken, StoredContentError, StoreUnreachable
from fangnetz.core.operations import Operation, Outcome, Step
from fangnetz.core.units import Incarnation, Instant, OperationId, Seconds, VmId
from fangnetz.ports import Assign, Claim, NotClaimed

WHY = {
    "gone": "the journal does not know this step",
    "closed": "its operation is closed",
    "epoch": "it was ordered under an epoch that is no longer in charge",
    "settled": "it is done already",
    "deadline": "its deadline has passed",
    "life": "it was ordered in another life of the store",
    "incarnation": "it was meant for another boot of this host",
    "generation": "the VM has moved on to another generation",
    "leased": "somebody else is at it",
    "placements": "other VMs were placed meanwhile",
    "clash": "the step it adds is there already",
    "later": "its next try is not due yet",
    "token": "somebody else has claimed it meanwhile",
    "paused": "the cluster is paused",
}


class RedisJournal:
    """`ports.Journal` on a Redis connection."""

    def __init__(self, client: redis.Redis, cluster: str, replicas_min: int = 0) -> None:
        """`replicas_min`: so many replicas confirm whatever an effect rests on, or it counts as not written."""
        self._redis = client
        self._keys = Keys(cluster)
        self._scripts = Scripts(client, replicas_min)

    def now(self) -> Instant:
        return instant(self._scripts("now", [self._keys.clock], []))

    # -- reading --

    def operation(self, identity: OperationId) -> Operation | None:
        found = self.operations_of([identity])
        return found[0] if found else None

    def operations_of(self, identities: Iterable[OperationId]) -> tuple[Operation, ...]:
        """Return those of the operations that exist, each with all its steps."""
        wanted = list(dict.fromkeys(identities))
        try:
            return self._read_operations(wanted)
        except StoredContentError:
            # Headers and steps are read one after the other: one that was forgotten in between has lost its steps.
            return self._read_operations(wanted)

    def _read_operations(self, wanted: Sequence[OperationId]) -> tuple[Operation, ...]:
        if not wanted:
            return ()
        pipe = self._redis.pipeline(transaction=False)
        for identity in wanted:
            pipe.hgetall(self._keys.operation(identity))
        found = zip(wanted, answers(pipe), strict=True)
        headers = [cast("dict[str, str]", sound(answer, self._keys.operation(identity))) for identity, answer in found]
        pipe = self._redis.pipeline(transaction=False)
        steps = [header.get("steps", "").split() for header in headers]
        for identity, keys in zip(wanted, steps, strict=True):
            for key in keys:
                pipe.hgetall(self._keys.step(identity, key))
        rows = iter(answers(pipe))
        result: list[Operation] = []
        for identity, header, keys in zip(wanted, headers, steps, strict=True):
            lines = [(key, sound(next(rows), self._keys.step(identity, key))) for key in keys]
            if header:
                result.append(
                    codec.operation(
                        header,
                        tuple(codec.step(key, fields, self._keys.step(identity, key)) for key, fields in lines),
                        self._keys.operation(identity),
                    )
                )
        return tuple(result)

    # -- writing --

    def open_operation(self, operation: Operation) -> bool:
        keys = self._keys
        args: list[str] = [
            str(operation.epoch),
            f"{operation.kind}/{operation.subject}",
            operation.id,
            codec.operation_header(operation),
            "\n".join(step.key for step in operation.steps),
        ]
        for step in operation.steps:
            args += _counted(codec.step_fields(step))
        steps = [keys.step(operation.id, step.key) for step in operation.steps]
        answer = self._scripts("open_operation", [keys.lease, keys.open, keys.operation(operation.id), *steps], args)
        if answer == 0:
            raise StaleToken(f"epoch {operation.epoch} is no longer in charge")
        return bool(answer == 1)

    def claim(
        self, identity: OperationId, key: str, *, token: str, executor: str, incarnation: Incarnation, lease: Seconds
    ) -> Claim | NotClaimed:
        operation = self.operation(identity)
        step = operation.step(key) if operation else None
        if operation is None or step is None:
            return NotClaimed(code="gone", sentence=f"{identity} {key}: {WHY['gone']}")
        try:
            answer = self._scripts.confirmed(
                "claim", self._guarded(operation, step), [token, executor, incarnation, micros(lease)]
            )
        except NotConfirmed as unconfirmed:
            if unconfirmed.answer[0] == 1:
                self._unclaim(identity, key, token, unconfirmed.answer[4])
            raise
        if answer[0] != 1:
            return NotClaimed(
                code=answer[1],
                sentence=f"{identity} {key}: {WHY.get(answer[1], answer[1])}",
                wait_s=Seconds(int(answer[3]) / 1_000_000),
            )
        fresh = self.operation(identity)
        line = fresh.step(key) if fresh else None
        if fresh is None or line is None:
            return NotClaimed(code="gone", sentence=f"{identity} {key}: {WHY['gone']}")
        return Claim(operation=fresh, step=line, token=token, now=instant(answer[1]), until=instant(answer[2]))

    def _unclaim(self, identity: OperationId, key: str, token: str, before: str) -> None:
        """Give a claim back that nobody was granted: it was no attempt. Where that fails, it stays counted as one."""
        keys = [self._keys.operation(identity), self._keys.step(identity, key)]
        with suppress(StoreUnreachable):
            self._scripts("unclaim", keys, [token, before])

    def renew(self, claim: Claim, lease: Seconds, progress: Progress | None = None, *, begins: bool = False) -> Instant:
        order = claim.step.order
        answer = self._scripts.confirmed(
            "renew",
            self._guarded(claim.operation, claim.step),
            [
                claim.token,
                order.incarnation if order else "",
                micros(lease),
                codec.encode(progress) if progress else "",
                "1" if begins else "",
            ],
        )
        if answer[0] != 1:
            problem = Paused if answer[1] == "paused" else StaleToken
            raise problem(f"{claim.operation.id} {claim.step.key}: {WHY.get(answer[1], answer[1])}")
        return instant(answer[2])

    def settle(self, claim: Claim, outcome: Outcome, assigns: Sequence[Assign] = (), placements: int = 0) -> Operation:
        keys, identity = self._keys, claim.operation.id
        args: list[str] = [
            claim.token,
            identity,
            outcome.state.value,
            outcome.sentence,
            json.dumps({**claim.step.facts, **outcome.facts}),
            micros(outcome.retry_after_s),
            outcome.closes.value if outcome.closes else "",
            "\n".join(step.key for step in outcome.adds),
            str(len(outcome.skips)),
            str(len(outcome.adds)),
            str(len(assigns)),
            str(placements),
        ]
        for step in outcome.adds:
            args += _counted(codec.step_fields(step))
        index = {step.key: position for position, step in enumerate(outcome.adds, start=1)}
        for give in assigns:
            args += [str(give.expected), str(give.floor), give.owner, give.incarnation, give.reason, identity]
            args += ["1" if give.moving else "", str(len(give.steps)), *(str(index[key]) for key in give.steps)]
        answer = self._scripts(
            "settle",
            [
                keys.lease,
                keys.operation(identity),
                keys.step(identity, claim.step.key),
                keys.open,
                keys.closed,
                keys.placements,
                *(keys.step(identity, key) for key in outcome.skips),
                *(keys.step(identity, step.key) for step in outcome.adds),
                *(keys.vm(give.vm) for give in assigns),
            ],
            args,
        )
        if answer[0] != 1:
            problem = Conflict if answer[1] in ("generation", "clash", "placements") else StaleToken
            raise problem(f"{identity} {claim.step.key}: {WHY.get(answer[1], answer[1])}")
        after = self.operation(identity)
        if after is None:
            raise StaleToken(f"{identity} is gone")
        return after

    def give_up(
        self, operation: Operation, step: Step, skips: Sequence[str], sentence: str, *, void: bool = False
    ) -> bool:
        """Settle as failed a step that nobody holds and whose deadline passed or whose order is void; else False."""
        facts = json.dumps({**step.facts, **({"superseded": True} if void else {})})
        keys = self._keys
        names = [keys.step(operation.id, key) for key in (step.key, *skips)]
        args = [str(operation.epoch), sentence, facts, "1" if void else ""]
        return bool(self._scripts("give_up", [keys.lease, keys.operation(operation.id), *names], args) == 1)

    def mark_dispatched(self, identity: OperationId, keys: Sequence[str]) -> None:
        if keys:
            self._scripts("dispatched", [self._keys.step(identity, key) for key in keys], [])

    def archive(self) -> None:
        """Drop the oldest closed operations beyond the bound."""
        with reading(self._keys.closed):
            old = cast("list[str]", self._redis.zrange(self._keys.closed, 0, -(CLOSED_MAX + 1)))
        for identity in map(OperationId, old):
            keys: str | None = None
            # Of another type: dropped with the steps' names it may have held.
            with suppress(StoredContentError), reading(self._keys.operation(identity)):
                keys = cast("str | None", self._redis.hget(self._keys.operation(identity), "steps"))
            steps = [self._keys.step(identity, key) for key in (keys or "").split()]
            self._scripts("drop_operation", [self._keys.closed, self._keys.operation(identity), *steps], [identity])

    def log(self, events: Sequence[Happened]) -> None:
        if not events:
            return
        pipe = self._redis.pipeline(transaction=False)
        for event in events:
            fields: dict[Any, Any] = {
                "kind": event.kind,
                "subject": event.subject,
                "sentence": event.sentence,
                "facts": json.dumps(dict(event.facts)),
            }
            pipe.xadd(self._keys.events, fields, maxlen=EVENTS_MAX, approximate=True)
        answers(pipe)  # a log of another type takes none; whoever reads it is told, and nobody's work stops for it

    def _guarded(self, operation: Operation, step: Step) -> list[str]:
        vm = step.order.vm if step.order else VmId("-")
        keys = self._keys
        return [keys.lease, keys.life, keys.operation(operation.id), keys.step(operation.id, step.key), keys.vm(vm),
                keys.ledger]  # fmt: skip


def _counted(fields: dict[str, str]) -> list[str]:
    flat = [part for pair in fields.items() for part in pair]
    return [str(len(flat)), *flat]
