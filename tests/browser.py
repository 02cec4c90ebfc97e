"""Open a report in Debian's Chromium; as a script, take the pictures of one: python tests/browser.py REPORT FOLDER."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
WIDE, PHONE = (1280, 900), (390, 844)


@dataclass
class Seen:
    """What a page did behind the scenes: every request, and every complaint of the console."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start one browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(
    browser: Browser, report: Path, size: tuple[int, int] = WIDE, scheme: str = "light"
) -> Iterator[tuple[Page, Seen]]:
    """Open a report in a window of its own."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
    )
    page, seen = context.new_page(), Seen()
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (seen.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.goto(report.absolute().as_uri())
    yield page, seen
    context.close()


def take(browser: Browser, report: Path, folder: Path) -> list[Path]:
    """Write ``report-{wide,phone}-{light,dark}.png``: what a reader sees first."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, size in (("wide", WIDE), ("phone", PHONE)):
        for scheme in ("light", "dark"):
            paths.append(folder / f"report-{name}-{scheme}.png")
            with opened(browser, report, size, scheme) as (page, _):
                page.screenshot(path=paths[-1])
    return paths


if __name__ == "__main__":
    with chromium() as started:
        print(*take(started, Path(sys.argv[1]), Path(sys.argv[2])), sep="\n")
