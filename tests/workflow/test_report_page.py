"""The report in headless Chromium: all of it is there and seen, and nothing leaves the machine."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from projects import SMALL

pytestmark = pytest.mark.browser
# What the page looks like to a reader, told by the browser's own layout.
PROBE = """<script>addEventListener("load", () => {
  const box = e => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };
  const seen = e => ({ id: e.closest("section").id, box: box(e) });
  const all = what => [...document.querySelectorAll(what)];
  const told = {
    tables: all("section table").map(e => ({ ...seen(e), rows: e.rows.length, text: e.innerText })),
    images: all("section img").map(e => ({ ...seen(e), natural: e.naturalWidth })),
    width: [document.documentElement.scrollWidth, innerWidth],
  };
  document.documentElement.setAttribute("data-told", JSON.stringify(told));
});</script>"""


def chromium(folder, *arguments):
    """Runs Chromium; returns what it printed and what pages said in the console."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "no Chromium. Allowed: Debian's package. Run `apt-get install chromium`."
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1600"]
    flags += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--no-first-run"]
    done = subprocess.run(
        [program, *flags, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.fixture(scope="module")
def page(finished):
    code, output = finished.snakemake("results/report.html")
    assert code == 0, output
    return finished.folder / "results" / "report.html"


@pytest.fixture(scope="module")
def told(page, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    text = page.read_text().replace("default-src 'none'", "script-src 'unsafe-inline'")
    (folder / "probed.html").write_text(text.replace("</head>", PROBE + "</head>"))
    dom, console = chromium(folder, "--dump-dom", f"file://{folder}/probed.html")
    assert console == []
    return json.loads(html.unescape(re.search(r'data-told="([^"]*)"', dom)[1]))


def test_every_table_and_figure_is_seen(told):
    tables = {table["id"]: table for table in reversed(told["tables"])}  # a section's first one
    images = {image["id"]: image for image in told["images"]}
    for name in SMALL["run"]:
        table = SMALL["experiments"][name]["kind"] == "table"
        shown = (tables if table else images)[name]
        width, height = shown["box"]
        assert width > 300
        assert height > 100
    assert tables["small-table"]["rows"] >= 5
    assert all(image["natural"] > 100 for image in told["images"])
    for row in ("Dense", "Global magnitude", "Wanda", "ECoFLaP"):
        assert row in tables["small-table"]["text"]
    assert told["width"][0] <= told["width"][1]  # wide tables scroll by themselves


def test_cost_versions_licences_and_the_graph_are_seen(told):
    tables = {table["id"]: table["text"] for table in told["tables"]}
    for rule in ("extract_calibration", "compute_scores", "prune_model", "evaluate_model"):
        (line,) = [line for line in tables["cost"].splitlines() if line.startswith(rule)]
        _, jobs, seconds, _, memory, *_ = line.split("\t")
        assert int(jobs) >= 1
        assert float(seconds) >= 0
        assert float(memory) > 1
    assert "torch" in tables["versions"]
    assert "demo-clip\tApache-2.0" in tables["licences"]
    (graph,) = [image for image in told["images"] if image["id"] == "rules"]
    assert graph["box"][0] > 500


def asked_for(log):
    """Returns the addresses that a page asked for; the browser's own calls have no origin."""
    found = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    return {
        ask["url"]
        for ask in found
        if ask.get("initiator", "not an origin") != "not an origin"
        and ask.get("url", "").startswith(("http", "ws"))
    }


def test_nothing_leaves_the_machine_and_the_console_is_silent(page, tmp_path):
    log, shot = tmp_path / "net.json", tmp_path / "report.png"
    _, console = chromium(
        tmp_path, f"--log-net-log={log}", f"--screenshot={shot}", f"file://{page}"
    )
    assert console == []
    assert shot.stat().st_size > 20_000
    assert asked_for(log) == set()
    # A page that does ask for something is seen by the same means.
    other = tmp_path / "other.html"
    other.write_text('<img src="http://127.0.0.1:9/picture.png">')
    chromium(tmp_path, f"--log-net-log={log}", f"--screenshot={shot}", f"file://{other}")
    assert asked_for(log) == {"http://127.0.0.1:9/picture.png"}


class Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        """Adds what a tag refers to."""
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset")]


def test_the_page_refers_to_nothing_outside_itself(page):
    links = Links()
    links.feed(page.read_text())
    assert links.found
    assert all(link.startswith(("data:", "#")) for link in links.found)
    assert "url(" not in page.read_text()
