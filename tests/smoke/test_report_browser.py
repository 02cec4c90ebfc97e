"""The report in a real browser: it sorts, filters, links, prints and fits a phone, and nothing leaves the file."""

import pytest
from browser import CHROMIUM, PHONE, WIDE, chromium, opened, take
from made_results import BASELINE, result, suite, write
from PIL import Image

from transfer import report as reports
from transfer.report import assembly

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`"
CONTRAST = """(selectors) => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = (v) => v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = (colour) => { const [r, g, b] = rgb(colour).map(linear); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour !== "rgba(0, 0, 0, 0)" ? colour : behind(element.parentElement);
  };
  return selectors.map((selector) => {
    const element = document.querySelector(selector);
    const [high, low] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    return [selector, (high + .05) / (low + .05)];
  });
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = suite(tmp_path_factory.mktemp("made"), pictures=True, seeds=True, curves=True, knn=True)
    reports.write(assembly.build(folder), folder / "report")
    return folder / "report" / "report.html"


def _shown(page, selector):
    return [text.strip() for text in page.locator(selector).locator("visible=true").all_inner_texts()]


def _names(page):
    return [text.split("\n")[0].replace(" baseline", "") for text in _shown(page, "#headline tbody th")]


def test_opening_scrolling_and_every_button_cause_no_request_and_no_complaint(browser, report):
    with opened(browser, report) as (page, seen):
        page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        for button in page.locator("button").all():
            button.click()
        for part in page.locator("summary").all():
            part.click()
        page.mouse.wheel(0, 100_000)
        page.wait_for_timeout(100)
        assert {url.split(":")[0] for url in seen.requests} <= {"file", "data"}
        assert [url for url in seen.requests if url.startswith("file")] == [report.absolute().as_uri()]
        assert seen.complaints == []
        assert page.locator("img").evaluate_all("images => images.every((i) => i.complete && i.naturalWidth > 0)")
        assert page.locator("img").count() == 2 + 2 * 2 * 3


def test_a_request_would_be_seen_and_stopped(browser, report, tmp_path):
    text = report.read_text().replace("<main>", '<main><img src="http://127.0.0.1:9/x.png">')
    (tmp_path / "leaky.html").write_text(text)
    with opened(browser, tmp_path / "leaky.html") as (page, seen):
        page.wait_for_timeout(100)
        assert any("Content Security Policy" in text for text in seen.complaints)


def test_tables_sort_by_the_column_that_is_pressed_and_back(browser, report):
    with opened(browser, report) as (page, _):
        head = page.get_by_role("button", name="Shapes detection, box AP")
        head.click()
        best_first = ["MoCo v2 + MixMask", BASELINE, "Random initialisation"]
        assert _names(page) == best_first
        assert page.locator("th[aria-sort=descending]").count() == 1
        head.click()
        assert _names(page) == best_first[::-1]
        page.get_by_role("button", name="checkpoint").first.click()
        assert _names(page) == sorted(best_first, key=str.lower)


def test_filters_hide_backbones_everywhere_and_say_how_many_are_left(browser, report):
    with opened(browser, report) as (page, _):
        page.locator("#find").fill("mixmask")
        assert _names(page) == ["MoCo v2 + MixMask"]
        assert page.locator("#shown").inner_text() == "1 of 3 backbones are shown."
        assert page.locator(".pictures figcaption", has_text="Random").locator("visible=true").count() == 0
        assert page.locator("table.narrow thead th").locator("visible=true").count() == 2  # the class, and MixMask
        page.locator("#find").fill("")
        page.locator("#verdict").select_option("worse")
        assert _names(page) == ["Random initialisation"]
        page.locator("#verdict").select_option("")
        page.locator("#benchmark").select_option(label="Shapes kNN")
        assert _shown(page, "#headline thead button") == ["checkpoint", "Shapes kNN, knn200 top1"]
        assert _names(page) == ["Random initialisation", BASELINE, "MoCo v2 + MixMask"]
        page.locator("#benchmark").select_option("")
        page.locator("input[data-find]").first.fill("no such class")
        assert _shown(page, "details.classes[open] tbody th") == []


def test_every_link_leads_to_its_section_and_opens_what_is_closed(browser, report):
    with opened(browser, report) as (page, _):
        for link in page.locator("nav a").all():
            link.click()
            target = page.evaluate("location.hash")
            assert page.locator(target).bounding_box()["y"] < WIDE[1]
        page.evaluate("location.hash = 'classes-2'")
        page.wait_for_function("document.getElementById('classes-2').open")


def test_the_keyboard_alone_finds_sorts_and_skips(browser, report):
    with opened(browser, report) as (page, _):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
        page.keyboard.press("/")
        page.keyboard.type("random")
        assert _names(page) == ["Random initialisation"]
        page.keyboard.press("Escape")
        assert len(_names(page)) == 3
        page.locator("#headline th button").nth(1).focus()
        page.keyboard.press("Enter")
        assert _names(page)[0] == "MoCo v2 + MixMask"
        legend = page.locator(".legend button").first
        legend.focus()
        page.keyboard.press("Space")
        assert legend.get_attribute("aria-pressed") == "true"
        assert page.locator("svg .dim").count() > 0


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_and_reads_well_in_dark_and_light(browser, report, size, scheme):
    with opened(browser, report, size, scheme) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        parts = [
            "h1",
            "#headline .main",
            "section .soft",
            ".pill.undecided, .pill",
            ".pill.better",
            ".pill.worse",
            "nav a",
        ]
        for selector, contrast in page.evaluate(CONTRAST, parts):
            assert contrast >= 4.5, (selector, contrast)  # WCAG 2.2, level AA


def test_the_button_turns_light_into_dark_and_back(browser, report):
    with opened(browser, report) as (page, _):
        colour = "getComputedStyle(document.body).backgroundColor"
        before = page.evaluate(colour)
        page.locator("#theme").click()
        assert page.evaluate(colour) == "rgb(15, 19, 23)"
        page.locator("#theme").click()
        assert page.evaluate(colour) == before


def test_paper_shows_what_is_closed_and_no_navigation(browser, report, tmp_path):
    with opened(browser, report, scheme="dark") as (page, _):
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        assert len(page.pdf()) > 50_000


def test_what_users_wrote_runs_nothing(browser, tmp_path):
    for name in (ATTACK, "B"):
        for trial in range(2):
            values = result(name, ATTACK, trial, {f"bbox/AP-{ATTACK}": 1.0 + trial, "bbox/AP": 2.0 + trial})
            values["checkpoint"] |= {"method": ATTACK, "notes": ATTACK, "pretrain": {ATTACK: ATTACK}}
            values |= {"command": ATTACK, "environment": {ATTACK: ATTACK}}
            write(tmp_path / f"{len(name)}{trial}", values)
    reports.write(assembly.build(tmp_path, "B"), tmp_path / "report")
    with opened(browser, tmp_path / "report" / "report.html") as (page, seen):
        page.locator("#find").fill("alert")
        page.wait_for_timeout(100)
        assert (seen.complaints, len(seen.requests), page.locator("script").count()) == ([], 1, 1)
        assert "alert(1)" in page.locator("#headline").inner_text()


def test_the_pictures_for_the_readme_come_in_two_widths_dark_and_light(browser, report, tmp_path):
    paths = take(browser, report, tmp_path)
    seen = {}
    for path in paths:
        with Image.open(path) as image:
            seen[path.name] = image.size, sum(image.convert("RGB").getpixel((2, 2))) < 200
    wanted = (("wide", WIDE), ("phone", PHONE))
    assert seen == {f"report-{n}-{s}.png": (size, s == "dark") for n, size in wanted for s in ("light", "dark")}
