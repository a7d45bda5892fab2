"""One step of an installation, as a process of its own that ends when whoever holds its standard input does.

    python -I held.py keep TEMP FOLDER         bring there what pip left whole in its temporary files, clear those
    python -I held.py environment FOLDER       make it anew, empty
    python -I held.py mend FOLDER              give it this Python again, leave what is installed in it
    python -I held.py pip PIP.whl ARGUMENT...
    python -I held.py check MODULE...          import them, then have everything written to the disk
    python -I held.py module NAME ARGUMENT...
    python -I held.py delete PATH...

The extension never imports this. Blender's own Python runs the first three, that of the environment the others.
No step starts a process: what is killed is gone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import shutil
import sys
import threading
import venv
import zipfile
import zlib
from pathlib import Path

OLDEST = (3, 11)
ABANDONED = 3
"""Exit code after the holder is gone."""
SAYS = "held: "
"""Before a sentence that is meant for the user."""


def hold_to_stdin() -> None:
    """End at once when standard input ends. What runs here finds an empty one: on Windows a handle that one thread
    reads cannot be asked anything by another."""
    held = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(held, 4096):
                pass
        os._exit(ABANDONED)

    threading.Thread(target=wait, daemon=True).start()


def keep(temp: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in temp.rglob("*.whl"):
        if _is_whole(wheel):
            wheel.replace(folder / wheel.name)
    for left in temp.iterdir():
        delete(str(left))


def _is_whole(wheel: Path) -> bool:
    """Whether a zip ends as it should and every file in it has its checksum."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError):
        return False


def environment(folder: Path) -> None:
    _create(folder, clear=True)


def mend(folder: Path) -> None:
    for link in (folder / "bin").glob("python*"):
        link.unlink()  # it may lead nowhere, and venv would leave it so
    _create(folder, upgrade=True)


def _create(folder: Path, **how: bool) -> None:
    if sys.version_info < OLDEST:
        sys.exit(
            SAYS
            + "Python {}.{} or newer is needed, this is {}.{}: use Blender 4.2 or newer".format(
                *OLDEST, *sys.version_info
            )
        )
    venv.EnvBuilder(symlinks=os.name != "nt", with_pip=False, **how).create(folder)
    scripts = folder / "Scripts"
    if os.name == "nt" and not (scripts / "python.exe").exists():
        # Pythons inside other programs may lack the launcher that venv copies: the interpreter itself will do.
        home = Path(sys.executable).parent
        for file in (*home.glob("python*.exe"), *home.glob("*.dll")):
            shutil.copy2(file, scripts)


def pip(wheel: str, *arguments: str) -> None:
    sys.argv = ["pip", *arguments]
    sys.path.insert(0, wheel)
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


def check(*modules: str) -> None:
    for name in modules:
        try:
            found = importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: a library of the system that is not there
            brief = " ".join(str(error).split())[:200]
            windows = "install Microsoft's Visual C++ Redistributable, then continue"
            remedy = windows if os.name == "nt" else "remove the server and install it again"
            sys.exit(f"{SAYS}{name} was installed and cannot be loaded ({brief}): {remedy}")
        sys.stdout.write(f"{name} {getattr(found, '__version__', '')}\n")
    if hasattr(os, "sync"):
        os.sync()


def module(name: str, *arguments: str) -> None:
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def delete(*paths: str) -> None:
    for path in map(Path, paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    hold_to_stdin()
    step, *given = sys.argv[1:]
    if step in ("keep", "environment", "mend"):
        {"keep": keep, "environment": environment, "mend": mend}[step](*map(Path, given))
    else:
        {"pip": pip, "check": check, "module": module, "delete": delete}[step](*given)
