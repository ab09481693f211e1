"""Headless Chromium, driven by selenium: `make page-test` installs both. Nothing here waits by sleeping."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

_T = TypeVar("_T")

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))


def require_browser() -> None:
    """Skip the module that calls this where there is no browser."""
    pytest.importorskip("selenium", reason="selenium is not installed: make page-test")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium is not installed: make page-test", allow_module_level=True)


class Browser:
    """One window."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.wait_s = 30.0

    def open(self, url: str, *, width: int = 1280, is_dark: bool = False) -> None:
        self.size(width, is_dark=is_dark)
        self.driver.get(url)

    def size(self, width: int, *, is_dark: bool = False) -> None:
        """Be so wide (CSS pixels), and in the one scheme of colours or the other."""
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def ask(self, script: str, *arguments: object) -> Any:
        """What a script returns (`return ...`)."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str = "body") -> str:
        """The text of an element, as it is shown."""
        return str(self.driver.find_element("css selector", selector).text)

    def until(self, condition: Callable[[], _T]) -> _T:
        """Wait until the condition holds, and return what it gave."""
        from selenium.webdriver.support.ui import WebDriverWait

        found: _T = WebDriverWait(self.driver, self.wait_s, poll_frequency=0.1).until(lambda _: condition())
        return found

    def press(self, key: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(key).perform()

    def complaints(self) -> list[str]:
        """What the console says since the last look: refused by policy, not found, thrown."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def picture(self, path: Path, *, height: int | None = None) -> None:
        """The whole page as a PNG, or so much of it from the top (CSS pixels)."""
        how: dict[str, Any] = {"captureBeyondViewport": True, "format": "png"}
        if height is not None:
            how["clip"] = {"x": 0, "y": 0, "width": self.ask("return innerWidth"), "height": height, "scale": 1}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", how)
        path.write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def browser(*, has_scripts: bool = True) -> Iterator[Browser]:
    """A browser; with `has_scripts` false, one in which pages have no JavaScript."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    assert CHROMIUM is not None
    options.binary_location = CHROMIUM
    # As root, as tests in containers are, Chromium has no sandbox of its own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    if not has_scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
