"""One browser and one page of every kind of section for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import binary, chromium
from tests.browser.synthetic import write

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("browser") / "page.html")


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Browser]:
    if binary() is None:
        pytest.skip("no Chromium on the path (Debian: apt-get install chromium)")
    with chromium() as found:
        yield found
