"""Which worker gets which request: by what it has, by what it has loaded, and why one waits. Values in, values out.

Workers may be unlike: another GPU, other weights. What a worker can is what it said of its own engines; workers that
say the same are one kind, and a decision costs as much as there are kinds, however many workers or requests there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush

from attrs import define, field, frozen
from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import ErrorCode, RequestError

from ..engine.base import Place, check


@frozen(cache_hash=True)
class Skill:
    """What a worker said of its engines, and which one `auto` mostly means to it."""

    engines: tuple[m.EngineInfo, ...] = ()
    default: str = ""

    @property
    def by_id(self) -> Mapping[str, m.EngineInfo]:
        return {info.id: info for info in self.engines}

    def refusal(self, request: m.Generate) -> RequestError | None:
        """Why a worker cannot do this; None where it can."""
        engines = self.by_id
        ids = [request.engine] if request.engine != L.AUTO else sorted(engines, key=lambda id: id != self.default)
        refused: RequestError | None = None
        for id in ids:
            try:
                _check(engines, id, request)  # for auto, the worker, which knows the device's memory, chooses
            except RequestError as error:
                refused = refused or error
            else:
                return None
        return refused or RequestError(ErrorCode.ENGINE_UNAVAILABLE, "there is no engine here", "engine")


NO_SKILL = Skill()
"""Of one that has not said anything yet."""


def _check(engines: Mapping[str, m.EngineInfo], id: str, request: m.Generate) -> None:
    info = engines.get(id)
    if info is None:
        known = ", ".join(engines) or "none yet, the server is starting"
        raise RequestError(ErrorCode.UNKNOWN_ENGINE, f"there is no engine {id!r}; there are: {known}", "engine")
    places = [Place(k.at, k.width, k.height) for k in request.keyframes]
    switches = [prompt.at for prompt in request.prompts]
    size, params = (request.width, request.height), request.params
    check(info, *size, request.num_frames, places, params, request.resume_from, switches)


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
    far = ErrorCode.UNKNOWN_ENGINE, ErrorCode.ENGINE_UNAVAILABLE
    refused.sort(key=lambda error: far.index(error.code) + 1 if error.code in far else 0)
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


def why_it_waits(request: m.Generate, busy: Sequence[Skill], starting: int) -> str:
    """In one line, for people: `busy` is what those can that are at work, `starting` how many will be there."""
    able = sum(not skill.refusal(request) for skill in busy)
    what = "" if request.engine == L.AUTO else f" with {request.engine}"
    if able:
        return m.fit(f"queued: {able} worker{'s' * (able != 1)}{what}, all at work", L.MAX_NAME_CHARS)
    if starting:
        return m.fit(f"queued: no worker{what} yet, {starting} starting", L.MAX_NAME_CHARS)
    return m.fit(f"queued: no worker{what} is here; start one that has it", L.MAX_NAME_CHARS)
