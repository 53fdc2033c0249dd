"""The site in headless Chromium, opened from files: what a visitor can do, on any screen, by mouse or keyboard."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_up_site import EPISODES, HOSTILE, HOSTILE_NAME, make_site, make_small

pytest.importorskip("jinja2", reason="needs the extra [leaderboard]")
playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra [dev]")
expect = playwright.expect
expect.set_options(timeout=30_000)
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra [dev]")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

Open = Callable[..., "Page"]
"""Opens an address of the site; further arguments are those of a browser context."""

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PAGES = {
    "index.html": "#simulation svg",
    "compare.html?a=strong&b=weak": "#comparison table",
    "submit.html": ".prose",
    "method/strong.html": "#curves svg",
    "index.html#real-robot": "#real-robot table",
    f"method/{HOSTILE}.html": "h1",
}
"""Page to a selector of what is there once the page is complete."""
KINDS = list(PAGES)[:4]
"""One page of each kind."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        own = started.chromium.executable_path
        path = shutil.which("chromium") or shutil.which("google-chrome") or (own if Path(own).exists() else None)
        if path is None:
            pytest.skip("needs Chromium: install it, or run `playwright install chromium`")
        launched = started.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def visit(browser: Browser, site: Path) -> Iterator[Open]:
    """Opens pages, and checks at the end that none reported an error, used the network, or ran code of an entry."""
    contexts, complaints, requests = [], [], []

    def open_page(address: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{address}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"{address}: {error}"))
        page.on("dialog", lambda dialog: complaints.append(f"{address}: dialog {dialog.message}"))
        page.on("request", lambda request: requests.append(request.url))
        page.on("requestfailed", lambda request: complaints.append(f"{address}: {request.url} failed"))
        page.goto(f"{site.as_uri()}/{address}")
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.hacked") is None
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def methods(page: Page, track: str = "simulation") -> list[str]:
    return page.locator(f"#{track} tbody th a").all_inner_texts()


def serious(page: Page, **options: Any) -> list[tuple[str, list[str]]]:
    """Rule and elements of each problem that axe rates as serious or worse."""
    settings = {"preload": False, "resultTypes": ["violations"]} | options
    return [
        (violation["id"], [node["html"][:120] for node in violation["nodes"][:3]])
        for violation in axe.Axe().run(page, options=settings).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


def head(page: Page, title: str) -> Locator:
    return page.locator("#simulation thead th").filter(has_text=re.compile(f"^{title}"))


@pytest.mark.parametrize("address", KINDS)
def test_axe_finds_nothing_serious(visit: Open, address: str) -> None:
    page = visit(address, viewport={"width": 1280, "height": 900})
    page.locator(PAGES[address]).first.wait_for()
    assert serious(page) == []
    if address in ("index.html", "method/strong.html"):  # with all colours; only contrast depends on the theme
        page.emulate_media(color_scheme="dark")
        assert serious(page, runOnly=["color-contrast"]) == []


@pytest.mark.parametrize("address", PAGES)
def test_a_narrow_screen_shows_pages_without_sideways_scrolling(visit: Open, address: str) -> None:
    page = visit(address, viewport={"width": 360, "height": 740})
    page.locator(PAGES[address]).first.wait_for()
    if address == "index.html":
        region = page.locator("#simulation .scroll")
        region.focus()
        page.keyboard.press("ArrowRight")  # the table itself scrolls
        page.wait_for_function("document.querySelector('#simulation .scroll').scrollLeft > 0")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_columns_sort_by_mouse_and_keyboard(visit: Open) -> None:
    page = visit("index.html")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()  # the first focusable element
    assert methods(page)[0] in ("Strong residual", "Alike residual")
    head(page, "Mean").click()
    expect(head(page, "Mean")).to_have_attribute("aria-sort", "descending")
    assert methods(page)[0] == "False claim"
    head(page, "Mean").click()
    expect(head(page, "Mean")).to_have_attribute("aria-sort", "ascending")
    assert methods(page)[0] == "Base alone"
    head(page, "Method").get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(head(page, "Method")).to_have_attribute("aria-sort", "ascending")
    assert methods(page) == sorted(methods(page), key=str.lower)
    page.keyboard.press("Space")
    expect(head(page, "Method")).to_have_attribute("aria-sort", "descending")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_filters_leave_what_fits(visit: Open) -> None:
    page = visit("index.html")
    table, filters = page.locator("#simulation"), page.get_by_role("search", name="Filter Simulation")
    assert table.locator("output").inner_text() == "6 entries"
    filters.get_by_label("Find").fill("alike")
    assert methods(page) == ["Alike residual"]
    assert table.locator("output").inner_text() == "1 of 6 entries"
    filters.get_by_label("Find").fill("")
    filters.get_by_label("Base").select_option("vla-v0")
    assert methods(page) == ["Alike residual"]
    filters.get_by_label("Base").select_option("all")
    filters.get_by_label("Only verified").check()
    assert set(methods(page)) == {"Base alone", "Strong residual", "Alike residual", "Weak residual"}
    filters.get_by_label("Find").fill("no such method")
    assert "No entry fits." in table.inner_text()
    filters.get_by_label("Only verified").uncheck()
    filters.get_by_label("Find").fill("onerror")  # a name is found as it is written
    assert methods(page) == [HOSTILE_NAME]


def test_one_track_is_shown_and_its_address_leads_back_to_it(visit: Open) -> None:
    page = visit("index.html#zero-shot")
    expect(page.locator("section.track:visible h2")).to_have_text(["Zero-shot transfer"])
    page.get_by_role("navigation", name="Tracks").get_by_text("Real robot").click()
    expect(page.locator("section.track:visible h2")).to_have_text(["Real robot"])
    assert "15 of 20" in page.locator("#real-robot").inner_text()
    assert "cannot be re-run" in page.locator("#real-robot").inner_text()
    page.go_back()
    expect(page.locator("section.track:visible h2")).to_have_text(["Zero-shot transfer"])


def test_plots_show_ranked_entries_and_references_and_no_rejected_one(visit: Open) -> None:
    page = visit("index.html")
    plot = page.get_by_role("img", name="Success rates in Lift")
    said = plot.get_attribute("aria-label") or ""
    assert "Strong residual" in said and "Base alone" in said and "False claim" not in said
    expect(page.locator("#simulation figure svg")).to_have_count(5)


def test_two_entries_are_compared_through_the_form(visit: Open, site: Path) -> None:
    page = visit("compare.html")
    page.get_by_label("First").select_option("Weak residual")
    page.get_by_label("Second").select_option("Strong residual")
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Strong residual is better by").wait_for()
    assert page.url.endswith("compare.html?a=weak&b=strong")
    assert page.get_by_label("First").input_value() == "weak"
    expect(page.locator(".sides")).to_contain_text("Weak residual deviating The maintainers ran all 60 rows again")
    assert page.locator("#comparison h2").all_inner_texts() == ["Simulation"]  # the only track that both ran in
    cells = page.locator("#comparison tbody tr").first.locator("td").all_inner_texts()
    assert sum(int(count) for count in cells[3:]) == EPISODES
    first, second, difference = (float(cell.split()[0]) for cell in cells[:3])
    assert difference == pytest.approx(second - first, abs=0.11)  # each is rounded
    page.get_by_text("Seeds in which they differ").click()
    seeds = page.locator("details dd").filter(has_text="Only Strong residual").first.inner_text()
    assert len(re.findall(r"\d+", seeds)) == int(cells[5])
    mean = page.locator("#comparison tfoot td").nth(2).locator(".rate")
    before = mean.inner_text()
    page.get_by_text("Swap the two").click()
    page.wait_for_url("**/compare.html?a=strong&b=weak")
    assert before.startswith("+")
    expect(mean).to_have_text(before.replace("+", "−"))


def test_a_comparison_says_what_is_only_claimed(visit: Open) -> None:
    page = visit("compare.html?a=strong&b=false-claim")
    expect(page.locator("#comparison")).to_contain_text("As claimed: False claim is better by")
    expect(page.locator(".sides")).to_contain_text("rejected")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("a=<img src=x onerror='window.hacked=1'>", "No entry in simulation is called <img"),
        ("a=weak&b=weak", "These are the same entry"),
    ],
)
def test_comparisons_that_make_no_sense_are_refused(visit: Open, query: str, said: str) -> None:
    page = visit(f"compare.html?{query}")
    expect(page.locator("#comparison").get_by_role("status")).to_contain_text(said)


def test_the_page_of_a_method_says_how_it_did_and_what_verification_found(visit: Open) -> None:
    page = visit("index.html")
    page.locator("#simulation").get_by_role("link", name="Strong residual").click()
    page.wait_for_url("**/method/strong.html")
    text = page.locator("main").inner_text()
    for said in ("Failures by kind", "no grasp", "named beforehand", "60 of 60", "python -m leaderboard verify strong"):
        assert said in text
    assert page.get_by_role("link", name="https://example.org/code").get_attribute("rel") == "noopener nofollow ugc"
    expect(page.get_by_role("img", name="Learning curve of Lift")).to_be_visible()
    page.get_by_role("link", name="with another entry").click()
    page.locator("#comparison h2").first.wait_for()
    assert page.get_by_label("First").input_value() == "strong"


def test_the_theme_follows_the_system_until_one_is_chosen_and_remembered(visit: Open) -> None:
    page = visit("index.html", color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    button = page.get_by_role("button", name="Dark")
    expect(button).to_have_attribute("aria-pressed", "true")  # the browser reports a new scheme a moment later
    button.click()
    assert button.get_attribute("aria-pressed") == "false" and page.evaluate(colour) == light != dark
    page.reload()
    assert page.evaluate(colour) == light
    button.click()
    assert page.evaluate(colour) == dark
    page.emulate_media(media="print")
    assert page.evaluate(colour) == light  # paper is white


def test_what_a_hostile_entry_says_is_text(visit: Open) -> None:
    page = visit(f"method/{HOSTILE}.html")
    assert page.locator("h1").inner_text() == HOSTILE_NAME
    assert page.locator("main img").count() == 0
    paragraphs = page.locator(".description").all_inner_texts()
    assert paragraphs[0] == "First paragraph, folded." and "{{ 7 * 7 }}" in paragraphs[1]
    assert page.locator("a[href^='javascript:'], a[href^='data:']").count() == 0
    page = visit(f"compare.html?a=strong&b={HOSTILE}")
    page.locator("#comparison h2").first.wait_for()
    assert page.locator("main img").count() == 0


def test_without_scripts_all_tables_can_be_read(visit: Open, site: Path) -> None:
    page = visit("index.html", java_script_enabled=False)
    assert page.locator("section.track:visible table").count() == 4
    assert page.locator("form:visible, .plots:visible").count() == 0


def test_skipping_to_the_content_leaves_the_track(visit: Open) -> None:
    page = visit("index.html#precision")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    expect(page.locator("section.track:visible h2")).to_have_text(["Precision"])
