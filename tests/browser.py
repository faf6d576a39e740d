"""A page in a headless Chromium, for the tests of whatever people open in a browser."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def opened(url: str, width: int = 1200, height: int = 1000, scheme: str = "light") -> Iterator[Any]:
    """A page of playwright's at `url`; skips the test where there is no Chromium or no playwright.

    When the block ends, nothing may have been written to the console as an error, no script may have thrown, and
    nothing may have been asked for but the page's own: below `url` if that is HTTP, nothing at all if it is a file.
    A page that the block has closed is asked nothing, since its server may have been ended under it.
    With TEXTRAIL_SCREENSHOTS set to a folder, a picture of the page as it then is lands there, named after its title.

    Args:
        url: http://…/ or file://….
        width: of the window, in pixels.
        height: of the window, in pixels.
        scheme: "light" or "dark", as the browser is set.
    """
    browser_path = next(filter(None, map(shutil.which, NAMES)), None)
    if browser_path is None or not importlib.util.find_spec("playwright"):
        pytest.skip("no Chromium on the PATH, or no playwright to drive it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(60_000)
        problems, requests = [], []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(url)
        yield page
        if page.is_closed():
            return
        if (folder := os.environ.get("TEXTRAIL_SCREENSHOTS")) and page.title():
            page.screenshot(path=f"{folder}/{page.title().split()[0]}_{scheme}_{width}.png", full_page=True)
        assert problems == []
        assert [asked for asked in requests if not asked.startswith((url, "data:", "blob:"))] == []
        browser.close()
