"""Small wheels that stand for large ones, so that installing takes seconds and no network."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import in_blender as b

HEAVY = ("torch", "numpy", "zmq", "transformers")

SERVER = """
import os, sys, time
if sys.argv[1:2] == ["fetch"]:
    for done in range(0, 101, 10):
        print(f"dit.safetensors: {done * 10**7} of {10**9}", flush=True)
    seen = os.environ.get("SEEN")
    for _ in range(6000 if seen else 0):
        if os.path.exists(seen):
            break
        time.sleep(0.01)
    sys.exit("sfserver: the hub cannot be reached; check the network" if "offline" in sys.argv[2] else 0)
os.execv(@PYTHON, [@PYTHON, "-m", "sfserver", *sys.argv[1:]])
"""
"""A server that is the real one, of the environment that the tests run beside."""


def put_wheel(folder: Path, name: str, version: str, files: dict[str, str], needs: tuple[str, ...] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    information = f"{name}-{version}.dist-info"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    packed = files | {
        f"{information}/METADATA": about + "".join(f"Requires-Dist: {need}\n" for need in needs),
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*packed, f"{information}/RECORD"))
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_in, text in (packed | {f"{information}/RECORD": record}).items():
            archive.writestr(zipfile.ZipInfo(name_in), text)  # of no day: the same content is the same file
    return path


def put_server(folder: Path, version: str = "0.1.0", says: str = SERVER) -> Path:
    main = says.replace("@PYTHON", repr(str(b.SERVER_PYTHON)))
    # Of another length for every version: Python takes compiled code for current by size and second alone.
    mark = "#" * sum(map(ord, version))
    files = {"sfserver/__init__.py": f"__version__ = {version!r}\n{mark}\n", "sfserver/__main__.py": main}
    return put_wheel(folder, "sfserver", version, files, HEAVY)


def put_heavy(folder: Path, but: tuple[str, ...] = (), extra: str = "") -> Path:
    for name in HEAVY:
        if name not in but:
            put_wheel(folder, name, "1.0", {f"{name}/__init__.py": "__version__ = '1.0'\n" + extra})
    return folder


PIP = """
import pathlib, site, sys, zipfile
folder, server = sys.argv[-2:]
if "--force-reinstall" in sys.argv:
    folder = "/nowhere"
heavy = [path for path in sorted(pathlib.Path(folder).glob("*.whl")) if not path.name.startswith("sfserver-")]
target = pathlib.Path(site.getsitepackages()[0])
print("Installing collected packages: " + ", ".join(["package"] * (len(heavy) + 1)), flush=True)
for path in [*heavy, pathlib.Path(server)]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not (target / name).exists() or path.name == pathlib.Path(server).name:
                archive.extract(name, target)
"""
"""What the real one does with these wheels, in a hundredth of its time."""


def put_payload(folder: Path, version: str = "0.1.0", real_pip: bool = False) -> object:
    """What lies in the zip, with a small server, and with a small pip where it is not pip that is looked at."""
    shipped = Path(b.module("install").__file__).parent / "server"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "constraints.txt").write_text("")  # the shipped ones pin what is real
    for old in folder.glob("*.whl"):
        old.unlink()
    put_server(folder, version)
    if real_pip:
        for path in shipped.glob("pip-*.whl"):
            shutil.copy(path, folder)
    else:
        put_wheel(folder, "pip", "1.0", {"pip/__init__.py": "", "pip/__main__.py": PIP})
    return b.module("install").Payload(folder)
