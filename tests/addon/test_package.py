"""The zips: what a reviewer looks for in them."""

from __future__ import annotations

import os
import tomllib
import zipfile
from pathlib import Path

import in_blender as b
import pytest

WHOLE = Path(os.environ.get("INBETWEEN_ZIP", b.PROJECT / "dist" / "inbetween-0.1.0.zip"))


@pytest.fixture(scope="module")
def manifest():
    return read(WHOLE)


def read(path):
    with zipfile.ZipFile(path) as packed:
        return tomllib.loads(packed.read("blender_manifest.toml").decode())


def test_whom_to_ask_and_under_which_licences_is_said(manifest):
    assert manifest["website"].startswith("https://")
    assert "<" in manifest["maintainer"]
    assert set(manifest["license"]) == {"SPDX:GPL-3.0-or-later", "SPDX:Apache-2.0", "SPDX:MIT"}
    with zipfile.ZipFile(WHOLE) as packed:
        assert "Apache License" in packed.read("sfwire/LICENSE").decode()
        assert "GNU GENERAL PUBLIC LICENSE" in packed.read("LICENSE").decode()


def test_each_platform_has_a_zip_of_its_own_beside_the_one_for_all(manifest):
    if "INBETWEEN_ZIP" in os.environ:
        pytest.skip("one zip was named")
    split = {path.name: read(path) for path in WHOLE.parent.glob(f"{WHOLE.stem}-*.zip")}
    assert sorted(m["build"]["generated"]["platforms"][0] for m in split.values()) == sorted(manifest["platforms"])
    for found in split.values():
        wheels = found["build"]["generated"]["wheels"]
        assert len(wheels) < len(manifest["wheels"])
        assert any("pyzmq" in wheel for wheel in wheels)
        assert {wheel.split("/")[-1] for wheel in wheels} <= {wheel.split("/")[-1] for wheel in manifest["wheels"]}


def test_the_server_lies_in_each_zip_and_is_not_for_blenders_own_python(manifest):
    for path in (WHOLE, *WHOLE.parent.glob(f"{WHOLE.stem}-*.zip")):
        with zipfile.ZipFile(path) as packed:
            served = [name for name in packed.namelist() if name.startswith("server/")]
        assert sorted(name.split("/")[1].split("-")[0] for name in served) == ["constraints.txt", "pip", "sfserver"]
    assert not [wheel for wheel in manifest["wheels"] if "sfserver" in wheel or "pip-" in wheel]


def test_nothing_is_shipped_that_only_builds_or_shows(manifest):
    with zipfile.ZipFile(WHOLE) as packed:
        names = packed.namelist()
    assert not [
        name for name in names if name.endswith(("build.py", "ruff.toml", "wheels.txt", "pip.txt", "growing.webp"))
    ]
