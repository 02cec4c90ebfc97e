"""The report in a real browser: it sorts, filters, links, prints and fits a phone, and nothing leaves the file."""

import re
from pathlib import Path

import pytest
from browser import CHROMIUM, PHONE, WIDE, chromium, opened, take
from made_results import BASELINE, DENSE, many, result, suite, write
from PIL import Image

from core import bounds
from core.provenance import ROOT
from transfer import report as reports
from transfer.report import assembly

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")

OPEN = "for (const part of document.querySelectorAll('details')) part.open = true"
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
        page.evaluate(OPEN)
        for button in page.locator("button").all():
            button.click()
        page.evaluate("for (const part of [...document.querySelectorAll('summary')].reverse()) part.click()")
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
        best_first = ["MoCo v2 + MixMask", BASELINE, "Random initialisation"]
        assert _names(page) == best_first  # by rank from the start
        for name in ("rank", "cost"):
            page.locator("#headline").get_by_role("button", name=name).click()
            assert page.locator("th[aria-sort=ascending]").count() == 1
        assert _names(page)[0] == "Random initialisation"  # it costs nothing
        head = page.locator("#headline").get_by_role("button", name="Shapes detection")
        head.click()
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
        page.evaluate(OPEN)
        assert (
            page.locator("table.narrow").first.locator("thead th >> visible=true").count() == 2
        )  # the class, and MixMask
        page.locator("#find").fill("")
        page.locator("#verdict").select_option("worse")
        assert _names(page) == ["Random initialisation"]
        page.locator("#verdict").select_option("")
        page.locator("#benchmark").select_option(label="Shapes kNN")
        assert [text.split("\n")[0] for text in _shown(page, "#headline thead [data-column] button")] == ["Shapes kNN"]
        assert _names(page) == ["MoCo v2 + MixMask", BASELINE, "Random initialisation"]
        page.locator("#benchmark").select_option("")
        page.locator("input[data-find]").first.fill("no such class")
        assert _shown(page, "#classes-1 tbody th") == []


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
        page.locator("#headline th [aria-label^=better], #headline th button").nth(1).focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert _names(page)[0] == "Random initialisation"
        page.evaluate(OPEN)
        legend = page.locator(".legend button").first
        legend.focus()
        page.keyboard.press("Space")
        assert legend.get_attribute("aria-pressed") == "true"
        assert page.locator("svg .dim").count() > 0


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = many(tmp_path_factory.mktemp("many"))
    reports.write(assembly.build(folder, "MoCo v2"), folder / "report")
    return folder / "report" / "report.html"


def test_the_first_screen_says_which_backbone_how_sure_and_at_what_cost_and_shows_eight_benchmarks(browser, large):
    with opened(browser, large, (1280, 800)) as (page, _):
        answer = page.locator(".answer")
        text = answer.inner_text()
        assert text.startswith(
            "MoCo v2 + Un-Mix + MixMask ranks first of 12 backbones: 1.1 on average over 8 benchmarks."
        )
        assert "Ranks alone do not tell it from" in text
        assert "Against MoCo v2 it is better on" in text
        assert "times its pre-training cost" in text
        assert answer.bounding_box()["y"] < 200
        table = page.locator("#headline")
        assert table.evaluate("t => t.parentElement.scrollWidth <= t.parentElement.clientWidth")  # all eight fit
        assert table.bounding_box()["x"] + table.bounding_box()["width"] <= 1280
        inside = [
            row
            for row in table.locator("tbody tr").all()
            if row.bounding_box()["y"] + row.bounding_box()["height"] < 800
        ]
        assert len(inside) >= 11
        cells = [
            text.split("\n") for text in table.locator("tbody tr").first.locator("td[data-column]").all_inner_texts()
        ]
        assert all(re.fullmatch(r"[\d.]+[▲▼≈]?", cell[0]) and re.fullmatch(r"± [\d.]+", cell[1]) for cell in cells)
        assert all(len(cell) == 2 for cell in cells)  # one number and one interval
        page.locator("#details").check()
        assert "detectable" in table.locator("tbody tr").first.inner_text()


def test_the_header_row_and_the_first_column_of_the_results_stay_in_sight(browser, large):
    with opened(browser, large, (400, 500)) as (page, _):
        page.locator(".tall").evaluate("box => { box.scrollTop = 300; box.scrollLeft = 500; }")
        box = page.locator(".tall").bounding_box()
        head, name = page.locator("#headline thead th").first, page.locator("#headline tbody th").last
        assert head.bounding_box()["y"] == pytest.approx(box["y"], abs=2)
        assert name.bounding_box()["x"] == pytest.approx(box["x"], abs=6)


def test_paper_has_every_benchmark_and_no_table_wider_than_the_sheet(browser, large):
    with opened(browser, large, (1036, 720)) as (page, _):  # A4 across, less its margins, at 96 dots an inch
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        shown = page.locator(".paper").first.inner_text()
        assert all(title in shown for _, title, _ in DENSE.values())
        right = page.locator("table").evaluate_all("ts => Math.max(...ts.map((t) => t.getBoundingClientRect().right))")
        assert right <= 1036
        for name in ("differences", "ranks", "cost", "metrics", "protocols", "remake"):
            assert page.locator(f"#{name}").is_visible()


def test_tables_are_copied_in_three_forms_and_figures_saved_in_two(browser, report):
    with opened(browser, report) as (page, seen):
        page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
        bar = page.locator(".tall + .save")
        copies = {}
        for form in ("Markdown", "CSV", "LaTeX"):
            bar.get_by_role("button", name=form).click()
            copies[form] = page.evaluate("window.copied").splitlines()
        assert copies["Markdown"][0].startswith("| checkpoint | rank |")
        assert copies["Markdown"][1] == "|" + " --- |" * 7
        assert copies["CSV"][1].startswith("MoCo v2 + MixMask,1.0,")
        assert copies["LaTeX"][0] == r"\begin{tabular}{lrrrrrr}"
        assert r"$\pm$" in copies["LaTeX"][4]
        page.evaluate(OPEN)
        for place in (".charts figure .save", ".forest + .save", ".ranks + .save"):
            bar = page.locator(place).first
            with page.expect_download() as saved:
                bar.get_by_role("button", name="SVG").click()
            drawing = bounds.xml(Path(saved.value.path()).read_text(), Path("drawing"))
            with page.expect_download() as saved:
                bar.get_by_role("button", name="PNG").click()
            with Image.open(Path(saved.value.path())) as picture:
                assert picture.size == tuple(int(4 * float(drawing.get(side))) for side in ("width", "height"))
                assert len(picture.getcolors(2**24)) > 20
            texts = ["".join(text.itertext()) for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
            if place != ".charts figure .save":
                assert saved.value.suggested_filename in (
                    "Differences-to-MoCo-v2-MSCN-Shapes-detection-box-AP.png",
                    "Average-rank-over-benchmarks.png",
                )
                assert {"MoCo v2 + MixMask", "Random initialisation"} <= set(texts)
        assert seen.complaints == []


AXE = next(
    (
        path
        for folder in (ROOT / ".tools" / "node_modules", ROOT / "node_modules", Path("/usr/lib/node_modules"))
        if (path := folder / "axe-core" / "axe.min.js").is_file()
    ),
    None,
)


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed: npm install --prefix .tools axe-core@4.14.1")
@pytest.mark.parametrize(
    ("made", "size", "scheme"),
    [("report", size, scheme) for size in ((1280, 800), (400, 860)) for scheme in ("light", "dark")]
    + [("large", (1280, 800), "light")],
)
def test_axe_finds_nothing_critical_or_serious(browser, request, made, size, scheme):
    with opened(browser, request.getfixturevalue(made), size, scheme) as (page, _):
        page.evaluate(OPEN)
        page.evaluate(AXE.read_text())  # through the debugger: the page's own policy admits no other script
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        bad = [
            (f["id"], [node["target"] for node in f["nodes"][:5]])
            for f in found
            if f["impact"] in ("critical", "serious")
        ]
        assert bad == []


@pytest.mark.parametrize("size", [WIDE, PHONE, (400, 860)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_and_reads_well_in_dark_and_light(browser, report, size, scheme):
    with opened(browser, report, size, scheme) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        page.evaluate(OPEN)
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
