"""Weights from the Hugging Face hub into the models folder: downloaded, checked against the hub's hash, converted.

A download that was interrupted goes on where it stopped, in this process or in another one. Nothing is converted before
its hash is the one that the hub names. Each download is removed as soon as the part that it becomes stands, the largest
comes first, and whether the disk holds all of it is seen before anything is downloaded (`room`).
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from attrs import define

from . import room
from .engine.presets import Part, Preset, Source
from .errors import UserError
from .weights import problem

if TYPE_CHECKING:
    from .weights.convert import Wish

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is: bytes, or tensors when converting."""

DOWNLOADS = ".downloads"
"""Below the models folder; may be deleted at any time."""
_READ_BYTES = 16 * 1024 * 1024


class FetchError(UserError):
    """A file that could not be had: one sentence with its name, the reason and the remedy."""


class LicenceError(UserError):
    """Weights whose licence must be accepted first; the sentence names it."""


def fetch(
    preset: Preset,
    models_dir: Path,
    accept_license: bool = False,
    on_progress: OnProgress = lambda what, done, of: None,
    endpoint: str | None = None,
    on_plan: Callable[[str], None] = lambda sentence: None,
) -> list[str]:
    """Bring every part of `preset` that is missing into `models_dir`, in the form that the engine opens.

    Returns a sentence for each optional part that could not be had; `on_plan` gets one about the room that it takes,
    before anything is downloaded. `endpoint` is the hub's address, by default what
    HF_ENDPOINT says or the public one. Raises LicenceError, FetchError, WeightsError, and OSError for a disk that
    cannot be written.
    """
    missing = [part for part in preset.parts if part.role != "lora" and problem(models_dir / part.path, part.role)]
    _check_licences(preset, missing, accept_license)
    plan, notes = _planned(missing, preset, models_dir / DOWNLOADS, endpoint)
    if why_not := room.shortage([item for _, item in plan], models_dir, preset.id):
        raise FetchError(why_not)
    if plan:
        on_plan(room.told([item for _, item in plan]))
    for done, (part, item) in enumerate(plan, 1):
        _install(part, preset, models_dir, on_progress, endpoint)
        later = {file for _, one in plan[done:] for file in one.files}
        for path in item.files.keys() - later:
            path.unlink(missing_ok=True)
    shutil.rmtree(models_dir / DOWNLOADS, ignore_errors=True)
    return notes


def _planned(
    missing: Sequence[Part], preset: Preset, downloads: Path, endpoint: str | None
) -> tuple[list[tuple[Part, room.Item]], list[str]]:
    """The parts to fetch, the largest first, since what is there by then takes room beside it; and notes."""
    plan, notes = [], []
    for part in missing:
        lora = preset.part("lora") if part.role == "dit" else None
        try:
            files = _files_of(part.source, downloads, endpoint)
            files |= _files_of(lora.source, downloads, endpoint) if lora else {}
        except FetchError as error:
            if not part.optional:
                raise
            notes.append(f"{error} ({preset.id} runs without it)")
            continue
        there = sum(_there(path, remote) for path, remote in files.items())
        sizes = {path: remote.size for path, remote in files.items()}
        plan.append((part, room.Item(sizes, there, room.converted_bytes(part.role, preset.dit, sum(sizes.values())))))
    return sorted(plan, key=lambda one: -sum(one[1].files.values())), notes


def licences(preset: Preset) -> tuple[str, ...]:
    """What a person should read before downloading: repository and licence of each source, once."""
    return tuple(dict.fromkeys(f"{part.source.repository}: {part.source.licence}" for part in preset.parts))


def _check_licences(preset: Preset, parts: list[Part], accepted: bool) -> None:
    unclear = [part.source for part in parts if part.source.confirm]
    if unclear and not accepted:
        named = "; ".join(dict.fromkeys(f"{source.repository} is under {source.licence}" for source in unclear))
        raise LicenceError(f"{named}; if that suits your use, run: sfserver fetch {preset.id} --accept-license")


def _install(part: Part, preset: Preset, models_dir: Path, on_progress: OnProgress, endpoint: str | None) -> None:
    from .weights.convert import convert  # with torch, which asking for a licence does not need

    downloads = models_dir / DOWNLOADS
    source = download(part.source, downloads, on_progress, endpoint)
    lora = preset.part("lora") if part.role == "dit" else None
    loras = ((download(lora.source, downloads, on_progress, endpoint), 1.0),) if lora else ()
    convert(source, (models_dir / part.path).parent, _wish(part, preset, loras, on_progress))


def _wish(part: Part, preset: Preset, loras: tuple[tuple[Path, float], ...], on_progress: OnProgress) -> Wish:
    from .weights.convert import Wish

    return Wish(
        preset=preset.id if part.role == "dit" else "",
        roles=(part.role,),
        prefer=part.source.prefer,
        loras=loras,
        expect_dim=preset.dit.dim,
        on_progress=lambda role, done, of: on_progress(f"converting {role}", done, of),
    )


# One file from the hub ------------------------------------------------------------------------------------------------


@define
class _Remote:
    """What the hub says of one file."""

    name: str
    url: str
    location: str
    """Where its bytes are: often another host than the hub."""
    size: int
    hash: str
    """64 hex digits: SHA-256 of the bytes, for large files. 40: git's SHA-1 of a blob, for small ones."""


def download(
    source: Source,
    folder: Path,
    on_progress: OnProgress = lambda what, done, of: None,
    endpoint: str | None = None,
) -> Path:
    """A file of the hub below `folder`, or all files of a source that ends in a slash; then its folder.

    A file that is there already is checked and not fetched again. Raises FetchError and OSError.
    """
    for target, remote in _files_of(source, folder, endpoint).items():
        _download_file(remote, target, on_progress)
    return folder / source.repository / source.file


def _files_of(source: Source, folder: Path, endpoint: str | None) -> dict[Path, _Remote]:
    """Where the files of a source are kept below `folder`, and what the hub says of each."""
    names = [source.file]
    if source.file.endswith("/"):
        names = _files_in(source.repository, source.file.rstrip("/"), endpoint)
    return {folder / source.repository / name: _look_up(source.repository, name, endpoint) for name in names}


def _download_file(remote: _Remote, target: Path, on_progress: OnProgress) -> None:
    if target.is_file() and _hash_of(target, remote.hash) == remote.hash:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target, remote)
    _check_space(remote, partial)
    with partial.open("ab") as file:
        _receive(remote, _Counted(file, remote, on_progress))
    found = _hash_of(partial, remote.hash)
    if found != remote.hash:
        partial.unlink()
        raise FetchError(f"{remote.url}: came with hash {found[:16]} where the hub names {remote.hash[:16]}; try again")
    partial.replace(target)


def _partial(target: Path, remote: _Remote) -> Path:
    return target.with_name(f"{target.name}.{remote.hash[:16]}.part")


def _there(target: Path, remote: _Remote) -> int:
    """Bytes of a file that need not be downloaded any more."""
    there = target if target.is_file() else _partial(target, remote)
    return min(there.stat().st_size, remote.size) if there.is_file() else 0


def _look_up(repository: str, name: str, endpoint: str | None) -> _Remote:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository, name, endpoint=endpoint)
    with _explained(repository, name, url):
        found = get_hf_file_metadata(url)
    if not found.etag or not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", found.etag) or found.size is None:
        raise FetchError(
            f"{url}: the server names neither hash nor size, so it is no Hugging Face hub; check HF_ENDPOINT"
        )
    return _Remote(name, url, found.location, found.size, found.etag)


def _files_in(repository: str, folder: str, endpoint: str | None) -> list[str]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=endpoint)
    with _explained(repository, folder, f"{api.endpoint}/{repository}"):
        names = [entry.path for entry in api.list_repo_tree(repository, folder) if isinstance(entry, RepoFile)]
    for name in names:
        if PurePosixPath(name).parent != PurePosixPath(folder) or PurePosixPath(name).name in ("", "..", "."):
            raise FetchError(f"{repository}: lists {name!r} as a file of {folder}; refused")
    if not names:
        raise FetchError(f"{repository}: has no files in {folder}; it may have been renamed, see its page")
    return names


def _receive(remote: _Remote, file: _Counted) -> None:
    """The rest of the file, from where the partial one ends."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    # A token is for the hub's own host: bytes usually come from another one, whose address is signed.
    same_host = remote.location.split("/")[2] == remote.url.split("/")[2]
    headers = build_hf_headers(token=None if same_host else False)
    start = file.tell()
    if start == remote.size:
        return
    with _explained("", remote.name, remote.url):
        http_get(remote.location, file, resume_size=start, headers=headers, expected_size=remote.size)  # pyright: ignore[reportArgumentType]


@define
class _Counted:
    """A file that tells how much was written to it: the hub's library knows progress bars only."""

    file: IO[bytes]
    remote: _Remote
    on_progress: OnProgress

    def write(self, piece: bytes) -> int:
        count = self.file.write(piece)
        self.on_progress(self.remote.name, self.file.tell(), self.remote.size)
        return count

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, offset: int) -> int:
        return self.file.seek(offset)

    def truncate(self) -> int:
        return self.file.truncate()


def _check_space(remote: _Remote, partial: Path) -> None:
    there = partial.stat().st_size if partial.exists() else 0
    if there > remote.size:
        partial.unlink()  # of another file, or written to by somebody else: nothing to go on from
    free = shutil.disk_usage(partial.parent).free
    needed = remote.size - there
    if free < needed:
        raise FetchError(
            f"{remote.name} needs {needed / 1e9:.1f} GB and {partial.parent} has {free / 1e9:.1f} GB free; "
            "make room, or set SFSERVER_MODELS_DIR to another disk"
        )


def _hash_of(path: Path, like: str) -> str:
    """The file's hash of the same kind as `like`."""
    digest = hashlib.sha256()
    if len(like) == 40:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _explained(repository: str, name: str, url: str) -> Iterator[None]:
    """The hub's errors as FetchError. OSErrors about the disk pass."""
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    from huggingface_hub.errors import HTTPError as NetworkError  # pyright: ignore[reportPrivateImportUsage]

    try:
        yield
    except GatedRepoError:
        raise FetchError(
            f"{repository}: is shared on request only; accept its terms on its page, then set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise FetchError(f"{url}: there is no repository {repository}, or it is private (set HF_TOKEN)") from None
    except EntryNotFoundError:
        raise FetchError(
            f"{repository}: has no {name}; it may have been renamed: look at its page, download the file by hand and "
            "run sfserver convert"
        ) from None
    except HfHubHTTPError as error:
        raise FetchError(f"{url}: the hub answered {error.response.status_code}; try again later") from None
    except NetworkError as error:  # of the network library, which is another one in each major version of the hub's
        raise FetchError(f"{url}: cannot be reached ({_brief(error)}); check the network or HF_ENDPOINT") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise FetchError(f"{url}: broke off ({_brief(error)}); run the same again to go on") from None


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
