"""A real Chromium without a window, and pages to open in it.

What is missing is said once, in one sentence that names what to install; nothing is skipped silently.
`TILESMITH_NO_BROWSER=1` is for a machine on which there can be none: then these tests are not collected, and pytest's
header says so.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import BROWSERS, FLAGS, SHOTS, WITHOUT, Shot, medium
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

collect_ignore_glob = ["test_*.py"] if WITHOUT else []


def pytest_report_header() -> str:
    return f"browser tests: {'left out, TILESMITH_NO_BROWSER=1' if WITHOUT else f'screenshots go to {SHOTS}'}"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if found is None or driver is None:
        pytest.fail(
            "the browser tests need Chromium and its driver: apt-get install chromium chromium-driver, or set "
            "TILESMITH_NO_BROWSER=1 to leave them out",
            pytrace=False,
        )
    options = Options()
    options.binary_location = found
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield opened
    finally:
        opened.quit()


@pytest.fixture
def chrome(browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """The browser as it starts; after the test its console must be empty."""
    browser.get("about:blank")
    browser.get_log("browser")
    medium(browser)
    browser.set_window_size(1280, 900)
    yield browser
    assert browser.get_log("browser") == []


@pytest.fixture
def shot(chrome: webdriver.Chrome) -> Shot:
    """`shot(name)`: the whole page as a picture."""

    def take(name: str) -> Path:
        SHOTS.mkdir(parents=True, exist_ok=True)
        size = chrome.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 9000), "scale": 1}
        taken = chrome.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        path = SHOTS / f"{name}.png"
        path.write_bytes(base64.b64decode(taken["data"]))
        return path

    return take
