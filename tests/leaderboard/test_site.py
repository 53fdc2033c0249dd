"""The content of the site and its files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from made_up import make_entry
from made_up_site import HOSTILE, HOSTILE_LINK, make_entries, make_site, make_small, write_record

pytest.importorskip("jinja2", reason="needs the extra [leaderboard]")

from leaderboard import LeaderboardError
from leaderboard.entry import Entry, verification_of
from leaderboard.site.board import Board, Method, make_board
from leaderboard.site.build import STATIC, build
from leaderboard.site.markup import from_markdown, script, web_link
from leaderboard.site.scores import Difference, ranks
from oc_residual_gym.evaluation.pairing import PAPER_MEAN, paired_rates
from oc_residual_gym.evaluation.statistics import Estimate


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("entries")


@pytest.fixture(scope="module")
def entries(folder: Path) -> list[Entry]:
    return make_entries(folder / "entries", folder / "verifications")


@pytest.fixture(scope="module")
def board(entries: list[Entry], folder: Path) -> Board:
    return make_board(entries, folder / "verifications")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("site"))


def files_of(site: Path) -> dict[str, bytes]:
    return {str(path.relative_to(site)): path.read_bytes() for path in site.rglob("*") if path.is_file()}


def test_differences_are_those_of_the_evaluations_own_comparison(board: Board) -> None:
    first, second = (next(m for m in board.methods if m.id == name) for name in ("alike", "strong"))
    records = paired_rates({"first": first.entry.rows("simulation"), "second": second.entry.rows("simulation")})
    found = board.differences["simulation"]["alike", "strong"]
    by_task = {record["task"]: record["difference"] for record in records}
    assert asdict(found.mean) == pytest.approx(by_task[PAPER_MEAN])
    for cell, estimate in found.cells.items():
        assert asdict(estimate) == pytest.approx(by_task[cell.task])


def test_entries_that_no_other_beats_share_the_first_rank(board: Board) -> None:
    lines = {line.method.id: line for line in board.lines("simulation")}
    assert (lines["strong"].rank, lines["alike"].rank, lines["weak"].rank) == (1, 1, 3)
    assert lines["strong"].shared and lines["alike"].shared and not lines["weak"].shared


def test_a_rank_counts_those_that_are_better_though_neighbours_cannot_be_told_apart() -> None:
    alike, better = (Difference({}, Estimate(0.02, low, 0.05)) for low in (-0.01, 0.01))
    differences = {("first", "second"): alike, ("second", "third"): alike, ("first", "third"): better}
    assert ranks(["first", "second", "third"], differences) == {"first": 2, "second": 1, "third": 1}


def test_references_rejected_and_unverified_entries_have_no_rank(board: Board) -> None:
    lines = board.lines("simulation")
    assert {line.method.id for line in lines if line.rank is None} == {"base-alone", "false-claim", HOSTILE}
    # References are sorted among the others; a false claim is not at the top, although its mean is the highest.
    assert [line.method.id for line in lines][-3:] == ["base-alone", "false-claim", HOSTILE]


def test_a_small_sample_earns_no_rank(tmp_path: Path) -> None:
    entry = make_entry(tmp_path / "own", 0.9, tracks=("precision",))
    for risk, ranked in ((0.09, True), (0.11, False)):
        sample = {"rows_per_cell": 40, "seed": 1, "risk": {"0.01": 0.9, "0.05": risk, "0.1": 0.01}}
        write_record(entry, tmp_path, "accepted", sample=sample)
        assert Method(entry, verification_of(entry, tmp_path), {}).is_ranked is ranked


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("strong", "verified"),
        ("alike", "verified, sample"),
        ("weak", "deviating"),
        ("false-claim", "rejected"),
        (HOSTILE, "not verified"),
    ],
)
def test_the_badge_says_what_verification_found(board: Board, entry: str, word: str) -> None:
    assert next(method for method in board.methods if method.id == entry).status.word == word


def test_a_verification_counts_only_for_the_content_it_ran(tmp_path: Path) -> None:
    entry = make_entry(tmp_path / "entries" / "changed", 0.9, tracks=("precision",))
    write_record(entry, tmp_path / "verifications", "accepted")
    changed = make_entry(entry.folder, 0.9, tracks=("precision",), name="Another name")
    line = make_board([changed], tmp_path / "verifications").lines("precision")[0]
    assert line.rank is None and line.method.status.word == "not verified"


def test_two_builds_are_the_same_and_the_second_replaces_the_first(site: Path, tmp_path: Path) -> None:
    other = make_site(tmp_path)
    assert files_of(other) == files_of(site)
    (other / "method" / "gone.html").write_text("an entry that was withdrawn")
    assert files_of(make_site(tmp_path)) == files_of(site)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_is_not_a_site_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(LeaderboardError, match="choose another --out"):
        build([], tmp_path)
    assert files_of(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_site_with_something_else_in_its_folder_stays_as_it_is(tmp_path: Path) -> None:
    build([], tmp_path / "site", tmp_path)
    (tmp_path / "site" / "CNAME").write_text("board.example.org")
    with pytest.raises(LeaderboardError, match="holds more than a site"):
        build([], tmp_path / "site", tmp_path)
    assert (tmp_path / "site" / "CNAME").exists()


def test_a_board_without_entries_says_so(tmp_path: Path) -> None:
    build([], tmp_path / "site", tmp_path)
    assert (tmp_path / "site" / "index.html").read_text().count("No entries yet.") == 4


def test_pages_link_only_to_what_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        for address in re.findall(r'(?:href|src)="([^"#?]+)[^"]*"', text):
            assert address.startswith(("https://", "http://", "data:")) or (page.parent / address).exists(), address


def test_addresses_that_are_not_of_web_pages_are_not_links(site: Path) -> None:
    page = (site / "method" / f"{HOSTILE}.html").read_text()
    assert HOSTILE_LINK in page and f'href="{HOSTILE_LINK}' not in page
    assert 'href="data:text' not in page


@pytest.mark.parametrize("address", ["http://example.org", "https://example.org/a?b=c#d"])
def test_web_pages_are_links(address: str) -> None:
    assert web_link(address) == address


@pytest.mark.parametrize(
    "address",
    [None, "", "javascript:alert(1)", " javascript:alert(1)", "data:text/html,x", "https:", "http://[", "//x"],
)
def test_other_addresses_are_not_links(address: str | None) -> None:
    assert web_link(address) is None


def test_data_cannot_end_the_script_they_are_in() -> None:
    text = script("name", {"key": "</script>\u2028\u2029<!--"})
    assert "<" not in text and text.isascii() and text.count("\n") == 1


def test_markdown_shows_html_as_text_and_drops_links_into_the_repository() -> None:
    text = "# Title\n\n<script>x</script> [file](../README.md) [schema](schema.json) [web](https://example.org)\n"
    html = from_markdown(text, linked=("schema.json",))
    assert "Title" not in html and "<script" not in html and "README.md" not in html
    assert '<span class="file">file</span>' in html
    assert '<a href="schema.json">' in html and '<a href="https://example.org">' in html


def test_libraries_are_those_that_the_note_names() -> None:
    vendor = STATIC / "vendor"
    named = dict(re.findall(r"^\| `(\S+\.js)` .* ([0-9a-f]{64}) \|$", (vendor / "README.md").read_text(), re.MULTILINE))
    assert named == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in vendor.glob("*.js")}
