"""One Ray cluster for all tests that need one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from houses import TOKENS, House, standing


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    if not importlib.util.find_spec("ray"):
        pytest.skip("Ray is not installed: pip install 'sfserver[ray]'")
    with standing(2, 2, **TOKENS) as house:
        yield house
