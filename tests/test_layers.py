"""Who may import whom. A line of code that moves into the wrong room fails here."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = "sfserver.config", "sfserver.errors", "sfserver.samples", "sfserver.engine.base", "sfwire"
ALLOWED = {
    "sfserver.model": ("sfserver.model",),
    "sfserver.weights": ("sfserver.weights", "sfserver.model", "sfserver.errors", "sfwire.regular"),
    "sfserver.media": ("sfserver.media", "sfserver.errors", "sfserver.samples", "sfwire.limits"),
    "sfserver.clip": (
        "sfserver.__version__",
        "sfserver.clip",
        "sfserver.config",
        "sfserver.engine",
        "sfserver.errors",
        "sfserver.media",
        "sfserver.samples",
        "sfserver.serve.endpoint",
        "sfwire",
    ),
    "sfserver.animatic": (
        "sfserver.commands.terminal",
        "sfserver.commands.typed",
        "sfserver.animatic",
        "sfserver.clip",
        "sfserver.config",
        "sfserver.engine",
        "sfserver.errors",
        "sfserver.media",
        "sfserver.samples",
        "sfwire",
    ),
    "sfserver.engine": ("sfserver.engine", "sfserver.model", "sfserver.weights", *BASE),
    "sfserver.train": ("sfserver.train", "sfserver.engine", "sfserver.model", "sfserver.weights", "sfserver.errors"),
    "sfserver.serve": ("sfserver.serve", *BASE, "sfserver.__version__", "sfserver.BORN_OF"),
    "sfwire": ("sfwire",),
    "blender_addon": ("blender_addon", "sfwire"),
}
"""A room, and what of ours its files may name in an import. `cli.py`, its neighbours and `commands/` may import all."""
EXCEPTIONS = {
    "sfserver/serve/worker.py": ("sfserver.engine.table", "sfserver.engine.choice"),
}
HEAVY = "torch", "numpy", "bpy", "PIL", "av", "transformers"


def modules(room: str) -> Iterator[Path]:
    folder = ROOT / ("shared/sfwire" if room == "sfwire" else room.replace(".", "/"))
    yield from sorted(folder.rglob("*.py"))


def imports(path: Path, package: str) -> Iterator[str]:
    """Absolute names of everything that the file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def package_of(path: Path) -> str:
    relative = path.relative_to(ROOT / "shared" if "shared" in path.parts else ROOT)
    return ".".join(relative.parent.parts)


def violations(room: str, path: Path) -> list[str]:
    allowed = ALLOWED[room] + EXCEPTIONS.get(str(path.relative_to(ROOT)), ())
    ours = [
        name
        for name in imports(path, package_of(path))
        if name.split(".")[0] in {"sfserver", "sfwire", "blender_addon"}
    ]
    return [name for name in ours if not any(name == a or name.startswith(a + ".") for a in allowed)]


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_its_door_allows(room: str) -> None:
    found = {str(path.relative_to(ROOT)): bad for path in modules(room) if (bad := violations(room, path))}
    assert not found
    assert list(modules(room)), "an empty room proves nothing"


def test_a_forbidden_import_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    bad = tmp_path / "sfserver" / "model" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("def f():\n    from ..engine import table\n")
    assert violations("sfserver.model", bad) == ["sfserver.engine.table"]


def test_one_file_of_the_server_knows_ray() -> None:
    knowing = [path.name for path in modules("sfserver.serve") if re.search(r"\bray\b", path.read_text("utf-8"), re.I)]
    assert knowing == ["by_ray.py"]


def circles(room: str) -> list[str]:
    """Files of a flat room that import themselves by way of others, imports inside functions included."""
    paths = {path.stem: path for path in modules(room)}
    needs = {stem: {name.split(".")[1] for name in imports(path, room) if "." in name} for stem, path in paths.items()}
    reach = {stem: needs[stem] & paths.keys() for stem in paths}
    for _ in paths:
        reach = {stem: found.union(*(needs[other] & paths.keys() for other in found)) for stem, found in reach.items()}
    return [stem for stem in paths if stem in reach[stem]]


def test_no_file_of_the_extension_imports_itself_by_way_of_others() -> None:
    assert not circles("blender_addon")


def test_a_circle_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "blender_addon").mkdir()
    (tmp_path / "blender_addon" / "one.py").write_text("from . import two\n")
    (tmp_path / "blender_addon" / "two.py").write_text("def f():\n    from .one import g\n")
    assert circles("blender_addon") == ["one", "two"]


def test_every_import_inside_sfwire_is_relative() -> None:
    for path in modules("sfwire"):
        names = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and not n.level]
        assert not [n.module for n in names if n.module and n.module.startswith("sfwire")], path


@pytest.mark.parametrize(
    "module",
    [
        "sfserver.serve.front",
        "sfserver.serve.supervise",
        *(f"sfwire.{path.stem}" for path in sorted((ROOT / "shared/sfwire").glob("*.py")) if path.stem != "__init__"),
    ],
)
def test_it_imports_with_everything_heavy_blocked(module: str) -> None:
    block = f"import sys\nfor name in {HEAVY}: sys.modules[name] = None\nimport {module}"
    subprocess.run([sys.executable, "-c", block], check=True, timeout=200)


def test_the_control_a_module_that_needs_torch_fails_when_it_is_blocked() -> None:
    block = "import sys\nsys.modules['torch'] = None\nimport sfserver.model.dit"
    assert subprocess.run([sys.executable, "-c", block], capture_output=True, timeout=200).returncode != 0


def test_listing_the_engines_loads_no_torch() -> None:
    code = (
        "import sys\nfrom sfserver.engine import table\nfrom sfserver.config import load_config\n"
        "config = load_config({'models_dir': '/nonexistent'})\n"
        "table.choose(table.describe_all(config), config)\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
