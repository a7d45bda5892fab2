"""Build the extension's zips, one for each platform and one for all: fetch the wheels, vendor sfwire, add the server to
be installed, let Blender's own tool pack and validate them.

    python blender_addon/build.py [--output dist]

Not part of the zip. Needs pip in the Python that runs it and one bpy wheel in a `.venv*` folder beside the project,
for `blender_ext.py`; `--blender-ext` names another copy of that script.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
PROJECT = SOURCE.parent
WIRE = PROJECT / "shared" / "sfwire"
STAGE = PROJECT / "build" / "extension"
WHEELS = PROJECT / ".wheels"
SERVER = PROJECT / "build" / "server"
NOT_SHIPPED = {"build.py", "growing.webp", "ruff.toml", "wheels.txt", "pip.txt", "__pycache__"}

PYTHONS = ("3.11", "3.13")
"""Of Blender 4.2 to 5.0, and of 5.1 and later."""
PLATFORMS = {
    "linux-x64": ("manylinux_2_28_x86_64", "manylinux_2_26_x86_64", "manylinux2014_x86_64"),
    "windows-x64": ("win_amd64",),
    "windows-arm64": ("win_arm64",),
    "macos-x64": ("macosx_10_15_universal2", "macosx_10_13_x86_64", "macosx_10_9_x86_64"),
    "macos-arm64": ("macosx_10_15_universal2", "macosx_11_0_arm64"),
}


def fetch_wheels() -> None:
    """Download what wheels.txt pins, for every Python and platform; pip refuses a wheel with another hash."""
    for python in PYTHONS:
        for tags in PLATFORMS.values():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--require-hashes", "--requirement", str(SOURCE / "wheels.txt"), "--dest", str(WHEELS)]
            command += ["--python-version", python, "--implementation", "cp"]
            for tag in tags:
                command += ["--platform", tag]
            subprocess.run(command, check=True, timeout=600)


def make_server() -> None:
    """What Install Server needs besides a package index: the server's wheel, the pip that was tested with it, and the
    versions of all else. Not for Blender's own Python, so none of it is in the manifest."""
    shutil.rmtree(SERVER, ignore_errors=True)
    pip = [sys.executable, "-m", "pip"]
    wheel = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(SERVER), str(PROJECT)]
    subprocess.run(wheel, check=True, timeout=600)
    pinned = ["--no-deps", "--require-hashes", "--requirement", str(SOURCE / "pip.txt"), "--dest", str(SERVER)]
    subprocess.run([*pip, "download", "--quiet", "--only-binary=:all:", *pinned], check=True, timeout=600)
    shutil.copy(PROJECT / "constraints.txt", SERVER)


def pinned_wheels() -> list[Path]:
    """The wheels in the cache that belong to this build: those whose name and version wheels.txt pins."""
    pins = [line.split()[0] for line in (SOURCE / "wheels.txt").read_text().splitlines() if "==" in line]
    prefixes = tuple(pin.replace("==", "-") + "-" for pin in pins)
    return sorted(path for path in WHEELS.glob("*.whl") if path.name.startswith(prefixes))


def stage() -> None:
    """Lay out the folder that becomes the zip: our modules, sfwire below them, the server, the wheels, the completed
    manifest."""
    shutil.rmtree(STAGE, ignore_errors=True)
    ignore = shutil.ignore_patterns(*NOT_SHIPPED)
    shutil.copytree(SOURCE, STAGE, ignore=ignore)
    shutil.copytree(WIRE, STAGE / "sfwire", ignore=ignore)
    shutil.copy(PROJECT / "LICENSE", STAGE / "sfwire" / "LICENSE")
    shutil.copytree(SERVER, STAGE / "server")
    (STAGE / "wheels").mkdir()
    wheels = pinned_wheels()
    for wheel in wheels:
        shutil.copy(wheel, STAGE / "wheels")
    names = "".join(f'  "./wheels/{wheel.name}",\n' for wheel in wheels)
    manifest = (SOURCE / "blender_manifest.toml").read_text()
    before, table, after = manifest.partition("[permissions]")
    (STAGE / "blender_manifest.toml").write_text(f"{before}wheels = [\n{names}]\n\n{table}{after}")


def blender_ext_scripts() -> Iterator[Path]:
    pattern = "lib/python*/site-packages/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py"
    for environment in sorted(PROJECT.glob(".venv*"), reverse=True):
        yield from environment.glob(pattern)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=PROJECT / "dist", help="folder for the zip")
    parser.add_argument("--blender-ext", type=Path, default=next(blender_ext_scripts(), None))
    parser.add_argument("--no-fetch", action="store_true", help="use the wheels that were fetched before")
    options = parser.parse_args()
    if options.blender_ext is None:
        raise SystemExit("no blender_ext.py: install a bpy wheel into .venv-bpy52, or name the script by --blender-ext")
    if not options.no_fetch:
        fetch_wheels()
        make_server()
    stage()
    tool = [sys.executable, str(options.blender_ext)]
    options.output.mkdir(parents=True, exist_ok=True)
    for stale in options.output.glob("inbetween-*.zip"):
        stale.unlink()
    build = [*tool, "build", "--source-dir", STAGE, "--output-dir", options.output]
    subprocess.run([*build, "--split-platforms"], check=True, timeout=300)
    subprocess.run(build, check=True, timeout=300)  # last: the newest is the one for all
    for path in options.output.glob("inbetween-*.zip"):
        subprocess.run([*tool, "validate", path], check=True, timeout=300)


if __name__ == "__main__":
    main()
