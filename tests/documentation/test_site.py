"""The documentation site builds without a warning, and what it links to is there."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import grape

pytest.importorskip("sphinx")
pytest.importorskip("furo")
pytest.importorskip("myst_nb")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """Links, anchors, images, and what a page loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors = {""}
        self.text = ""
        self.described: set[str] = set()
        self._describes = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self._describes = self._describes or "descname" in values.get("class", "").split()
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif "src" in values or (tag == "link" and values.get("rel") == "stylesheet"):
            self.loads.append(values.get("src") or values["href"])

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._describes:
            self.described.add(data)
            self._describes = False


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the outputs of one notebook; tests/examples runs them all."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-q", "-b", "html", "-d", folder / "trees"]
    command += ["-D", f"nb_execution_cache_path={folder / 'notebooks'}"]
    done = subprocess.run(
        [*command, ROOT / "docs", folder / "html"],
        env=os.environ | {"RUN_NOTEBOOKS": "write-a-cost"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    # A kernel says by itself, on every start, that only this machine's own ports separate it from others.
    reports = [line for line in done.stderr.splitlines() if line and not line.startswith("[IPKernelApp]")]
    assert (done.returncode, reports) == (0, [])
    return folder / "html"


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 30
    for path, page in pages.items():
        for target in page.loads:
            address = urlsplit(target)
            if address.scheme == "data":  # the page holds it itself
                continue
            assert not address.netloc, f"{path.name} loads {target}"
            assert (path.parent / unquote(address.path)).exists(), f"{path.name} loads {target}"
        for target in page.links:
            address = urlsplit(target)
            if address.scheme or address.netloc:
                continue
            file = (path.parent / unquote(address.path)).resolve() if address.path else path
            assert file.exists(), f"{path.name}: {target} leads nowhere"
            if file in pages:
                assert unquote(address.fragment) in pages[file].anchors, f"{path.name}: no place for {target}"


def test_the_first_page_shows_the_way_in_a_newcomers_order(site: Path) -> None:
    text = Page(site / "index.html").text
    headings = ["Start", "Tutorials", "How to", "Reference", "Explanation", "Results", "Project"]
    places = [text.index(f"{heading}\n") for heading in headings]
    assert places == sorted(places)


def test_the_reference_comes_from_docstrings(site: Path) -> None:
    text = Page(site / "reference" / "data.html").text
    assert "Float32 arrays" not in text
    for name in ("Trajectory", "EpisodeStore", "GrapeError", "ActionSpace"):
        assert name in text
    assert "Number of control steps T" in " ".join(Page(site / "reference" / "scores.html").text.split())


def test_the_reference_describes_every_public_name(site: Path) -> None:
    described: set[str] = set()
    for page in (site / "reference").glob("*.html"):
        described |= Page(page).described
    assert set(grape.__all__) - {"__version__"} <= described


def test_formulas_are_drawn_by_the_browser(site: Path) -> None:
    page = (site / "method.html").read_text(encoding="utf-8")
    assert page.count("<math") > 40
    assert not re.search(r"\$|\\\w", Page(site / "method.html").text), "a formula's source is shown"


def test_files_of_the_checkout_are_pages_with_links_of_the_site(site: Path) -> None:
    links = Page(site / "contributing.html").links
    assert {"architecture.html", "measurements.html"} <= {link.partition("#")[0] for link in links}
    assert "method.html" in Page(site / "overview.html").links
    assert "What 0.2 brings" in Page(site / "changelog.html").text


def test_a_notebook_is_a_page_with_what_it_puts_out(site: Path) -> None:
    source = (site / "tutorials" / "write-a-cost.html").read_text(encoding="utf-8")
    page = Page(site / "tutorials" / "write-a-cost.html")
    assert "my-cost.yaml: ACCEPT" in page.text  # printed
    assert source.count('src="data:image/jpeg;base64,') >= 3  # film strips
    assert re.search(r'<img alt="[^"]*" src="\.\./_images/[0-9a-f]+\.png"', source)  # a figure
    assert {"../costs.html", "../generation.html"} <= {link.partition("#")[0] for link in page.links}
    assert any(re.fullmatch(r"\.\./_downloads/\w+/write-a-cost\.ipynb", link) for link in page.links)
    links = Page(site / "tutorials" / "align-a-policy.html").links
    assert {"read-the-statistics.html", "own-policy.html", "../results/laboratory.html"} <= set(links)
