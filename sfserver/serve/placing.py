"""Which worker gets which request: by what it has, by what it has loaded, and why one waits. Values in, values out.

Workers may be unlike: another GPU, other weights. What a worker can is what it said of its own engines; workers that
say the same are one kind, and a decision costs as much as there are kinds, however many workers or requests there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush

from attrs import Factory, define, field, frozen
from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import ErrorCode, RequestError

from .asked import require_possible


def _by_id(skill: Skill) -> Mapping[str, m.EngineInfo]:
    return {info.id: info for info in skill.engines}


@frozen(cache_hash=True)
class Skill:
    """What a worker said of its engines, and which one `auto` mostly means to it."""

    engines: tuple[m.EngineInfo, ...] = ()
    default: str = ""
    by_id: Mapping[str, m.EngineInfo] = field(
        init=False, eq=False, repr=False, default=Factory(_by_id, takes_self=True)
    )
    """The same once more, for those who decide: each of them needs it for each request."""

    def refusal(self, request: m.Generate) -> RequestError | None:
        """Why a worker cannot do this; None where it can."""
        try:
            require_possible(request, self.by_id, self.default)
        except RequestError as error:
            return error
        return None


ABSENT = ErrorCode.UNKNOWN_ENGINE, ErrorCode.ENGINE_UNAVAILABLE
"""Of a worker that lacks the engine: another one may have it."""
NO_SKILL = Skill()
"""Of one that has not said anything yet."""


def refusal_of_all(skills: Iterable[Skill], request: m.Generate) -> RequestError | None:
    """Why nobody can do this: what the worker says that comes nearest, which has the engine and not the room for one.

    None where somebody can.
    """
    refused: list[RequestError] = []
    for skill in dict.fromkeys(skills):
        error = skill.refusal(request)
        if error is None:
            return None
        refused.append(error)
    refused.sort(key=lambda error: ABSENT.index(error.code) + 1 if error.code in ABSENT else 0)
    return refused[0] if refused else RequestError(ErrorCode.ENGINE_UNAVAILABLE, "no worker is here yet", "engine")


def all_engines(skills: Iterable[Skill]) -> tuple[m.EngineInfo, ...]:
    """What clients are told: every engine that any worker has, from one that can run it if there is any."""
    best: dict[str, m.EngineInfo] = {}
    for info in (info for skill in dict.fromkeys(skills) for info in skill.engines):
        known = best.get(info.id)
        if known is None or (info.available, info.max_pixels) > (known.available, known.max_pixels):
            best[info.id] = info
    return tuple(best.values())[: L.MAX_ENGINES]


def other_version(skill: Skill, known: Iterable[Skill]) -> str | None:
    """The sentence for a worker one of whose engines makes other pixels than the same one elsewhere; None if none."""
    versions = {info.id: info.version for other in known for info in other.engines if info.available}
    for info in skill.engines:
        ours = versions.get(info.id, info.version)
        if info.available and info.version != ours:
            return (
                f"its engine {info.id} is version {info.version}, the server's {ours}, and they make other pixels; "
                "install the same version and weights on both"
            )
    return None


def loaded_after(loaded: frozenset[str], engine: str, skill: Skill) -> frozenset[str]:
    """What a worker has loaded once it has run this engine: a large one makes room for another large one."""
    engines = skill.by_id
    if engine not in engines:
        return loaded
    if engines[engine].memory_bytes:
        loaded = frozenset(id for id in loaded if id in engines and not engines[id].memory_bytes)
    return loaded | {engine}


@frozen(cache_hash=True)
class _Kind:
    skill: Skill
    loaded: frozenset[str]

    def cost(self, request: m.Generate) -> tuple[int, int, int]:
        """How little a request should go here: to load its engine, to lose another large one, to take an able one."""
        engines = self.skill.by_id
        wanted = self.skill.default if request.engine == L.AUTO else request.engine
        has_it = wanted in self.loaded
        loses = sum(bool(engines[id].memory_bytes) for id in self.loaded if id in engines)
        return (0 if has_it else 1), (0 if has_it else loses), sum(info.available for info in self.skill.engines)


@define
class Idle:
    """Workers with nothing in hand, by kind; of one kind the first comes first."""

    _heaps: dict[_Kind, list[int]] = field(factory=dict[_Kind, list[int]])
    """In which some may not be idle any more, or of another kind by now."""
    _kinds: dict[int, _Kind] = field(factory=dict[int, _Kind])

    def __len__(self) -> int:
        return len(self._kinds)

    def add(self, index: int, skill: Skill, loaded: frozenset[str]) -> None:
        kind = self._kinds[index] = _Kind(skill, loaded)
        heappush(self._heaps.setdefault(kind, []), index)

    def remove(self, index: int) -> None:
        self._kinds.pop(index, None)

    def take(self, request: m.Generate) -> int | None:
        """The worker that this request should go to, idle no more; None where none of them can do it."""
        able = [kind for kind in list(self._heaps) if self._first(kind) is not None and not kind.skill.refusal(request)]
        best = min(able, key=lambda kind: (kind.cost(request), self._first(kind)), default=None)
        if best is None:
            return None
        index = heappop(self._heaps[best])
        del self._kinds[index]
        return index

    def _first(self, kind: _Kind) -> int | None:
        heap = self._heaps[kind]
        while heap and self._kinds.get(heap[0]) != kind:
            heappop(heap)
        if not heap:
            del self._heaps[kind]
        return heap[0] if heap else None


def why_it_waits(request: m.Generate, busy: Mapping[Skill, int], starting: int) -> str:
    """In one line, for people: `busy` is how many of each kind are at work, `starting` how many will be there."""
    able = sum(count for skill, count in busy.items() if not skill.refusal(request))
    what = "" if request.engine == L.AUTO else f" with {request.engine}"
    if able:
        return m.fit(f"queued: {able} worker{'s' * (able != 1)}{what}, all at work", L.MAX_NAME_CHARS)
    if starting:
        return m.fit(f"queued: no worker{what} yet, {starting} starting", L.MAX_NAME_CHARS)
    return m.fit(f"queued: no worker{what} is here; start one that has it", L.MAX_NAME_CHARS)
