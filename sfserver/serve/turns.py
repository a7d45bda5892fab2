"""Who comes next: the requests that wait, so that nobody who asks for much keeps those waiting who ask for little.

Each request gets a round when it comes: one more than its owner's last, and no earlier than the one that is being
started now. It is started in order of rounds, and within a round in order of arrival. So an owner with fifty requests
and one with a single one take turns; alone, an owner is served in the order in which it asked.

Somebody sits before what is interactive. What comes in a batch takes BATCH_STEP rounds at a time, as if its owner were
as many others: it lets those go first who come now, and is not kept waiting for ever either.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from attrs import define, evolve, field, frozen
from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import ErrorCode, RequestError

BATCH_STEP = 4
"""Interactive requests of one owner that may come before the next one of a batch."""

_CAME_BACK = -1e9
"""Added to the arrival of one that stood here before: it comes before those of its round that arrived meanwhile."""


@frozen
class _Flow:
    """What of one owner is started in the order in which it came."""

    owner: str
    priority: m.Priority

    @property
    def step(self) -> int:
        return BATCH_STEP if self.priority == "batch" else 1


@frozen(order=True)
class _Place:
    round: int
    arrival: float
    key: str = field(order=False)
    flow: _Flow = field(order=False)
    num_bytes: int = field(order=False)


@define
class _Held:
    """What waits, counted, so that nobody has to go through it."""

    places: int = 0
    num_bytes: int = 0

    def add(self, place: _Place) -> None:
        self.places, self.num_bytes = self.places + 1, self.num_bytes + place.num_bytes

    def remove(self, place: _Place) -> None:
        self.places, self.num_bytes = self.places - 1, self.num_bytes - place.num_bytes


@define
class Turns:
    """`key` names a request, `owner` whoever asked for it, `num_bytes` what it makes us hold while it waits."""

    _places: list[_Place] = field(factory=list[_Place])
    """In the order in which they will be started."""
    _by_key: dict[str, _Place] = field(factory=dict[str, _Place])
    _all: _Held = field(factory=_Held)
    _of: dict[str, _Held] = field(factory=dict[str, _Held])
    """By owner."""
    _waiting: dict[_Flow, int] = field(factory=dict[_Flow, int])
    _rounds: dict[_Flow, int] = field(factory=dict[_Flow, int])
    """Of each flow that waits, or had its turn in this round: the round of its last request."""
    _left: list[_Flow] = field(factory=list[_Flow])
    """Flows that wait no more, to be forgotten once their round is over: who asks again at once has a later one."""
    _round: int = 0
    """Of the request that was started last."""
    _arrivals: int = 0

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        """Keys, the next one first."""
        return (place.key for place in self._places)

    def add(
        self, key: str, owner: str, num_bytes: int, priority: m.Priority = "interactive", round: int | None = None
    ) -> int:
        """Let it wait; how many come before it. `round`: where it stood before, if it did.

        Raises RequestError where the house is full, or the owner's share.
        """
        self._check_room(self._of.get(owner, _Held()), num_bytes)
        flow = _Flow(owner, priority)
        came_back = round is not None
        if round is None:
            round = max(self._round + flow.step - 1, self._rounds.get(flow, -1) + flow.step)
        self._rounds[flow] = max(round, self._rounds.get(flow, round))
        self._arrivals += 1
        place = _Place(round, self._arrivals + (_CAME_BACK if came_back else 0), key, flow, num_bytes)
        self._insert(place)
        self._all.add(place)
        self._of.setdefault(owner, _Held()).add(place)
        self._waiting[flow] = self._waiting.get(flow, 0) + 1
        return bisect_left(self._places, place)

    def round_of(self, key: str) -> int:
        """Of one that waits."""
        return self._by_key[key].round

    def move(self, key: str, to: int) -> None:
        """Let it stand behind `to` others, or behind all."""
        place = self._by_key[key]
        del self._places[bisect_left(self._places, place)]
        before = self._places[:to][-1] if self._places[:to] else None
        after = self._places[to] if to < len(self._places) else None
        if after is None:
            self._arrivals += 1
            moved = evolve(place, round=max(place.round, before.round if before else 0), arrival=self._arrivals)
        elif before is not None and before.round == after.round:
            moved = evolve(place, round=after.round, arrival=(before.arrival + after.arrival) / 2)
        else:
            moved = evolve(place, round=after.round, arrival=after.arrival - 1)
        self._insert(moved)

    def _insert(self, place: _Place) -> None:
        insort(self._places, place)
        self._by_key[place.key] = place

    def after(self, others: int) -> str | None:
        """The one that so many others come before; None where fewer wait."""
        return self._places[others].key if others < len(self._places) else None

    def pop(self, others: int = 0) -> str | None:
        """The one that so many others come before, which waits no more: mostly the next one."""
        if others >= len(self._places):
            return None
        place = self._places[others]
        self.remove(place.key)
        if not others and place.round > self._round:  # one that stood here before may have an earlier round
            self._round = place.round
            self._forget()
        return place.key

    def remove(self, key: str) -> None:
        """It does not wait any more, if it did."""
        place = self._by_key.pop(key, None)
        if place is None:
            return
        del self._places[bisect_left(self._places, place)]
        self._all.remove(place)
        own = self._of[place.flow.owner]
        own.remove(place)
        if not own.places:
            del self._of[place.flow.owner]
        self._waiting[place.flow] -= 1
        if not self._waiting[place.flow]:
            del self._waiting[place.flow]
            self._left.append(place.flow)

    def _forget(self) -> None:
        left, self._left = dict.fromkeys(self._left), []
        for flow in left:
            if flow in self._waiting:
                continue
            if self._rounds[flow] < self._round:
                del self._rounds[flow]
            else:
                self._left.append(flow)

    def _check_room(self, own: _Held, num_bytes: int) -> None:
        house, share = self._all.places, own.places
        if share >= L.MAX_QUEUED_OF_ONE:
            raise _full(f"{share} requests of this client are waiting, the most of one; ask again when one has ended")
        if house >= L.MAX_QUEUED:
            raise _full(f"{house} requests are waiting, the most there may be; ask again later")
        for held, most, whose in (
            (own.num_bytes, L.MAX_QUEUED_BYTES_OF_ONE, "this client's waiting requests"),
            (self._all.num_bytes, L.MAX_QUEUED_BYTES, "the waiting requests"),
        ):
            if held + num_bytes > most:
                raise _full(f"{whose} hold {held >> 20} MiB of keyframes, at most {most >> 20}; ask again later")


def _full(sentence: str) -> RequestError:
    return RequestError(ErrorCode.QUEUE_FULL, sentence)
