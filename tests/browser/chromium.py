"""What the browser tests share: where it is, how it is started, how a reader looks at a page."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from selenium.webdriver import Chrome

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
"""Artefacts to look at; not in the repository."""
WITHOUT = os.environ.get("TILESMITH_NO_BROWSER") == "1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
    "--window-size=1280,900",
)

Shot = Callable[[str], Path]


def medium(chrome: Chrome, *, dark: bool = False, paper: bool = False) -> None:
    """How the reader looks at it."""
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print" if paper else "", "features": features})
