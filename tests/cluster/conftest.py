"""One Ray cluster for all tests that need one; `make test-ray` asks for them, and nothing else does."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from houses import TOKENS, House, standing


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "ray" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("ray"):
                item.add_marker(pytest.mark.skip(reason="a gigabyte of Ray: make test-ray"))


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    if not importlib.util.find_spec("ray"):
        pytest.skip("Ray is not installed: pip install 'sfserver[ray]'")
    with standing(1, 1, **TOKENS) as house:
        yield house
