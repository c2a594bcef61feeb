"""The report page in a headless Chromium: what a reader clicks, and what then changes."""

import csv
import io
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.report.page_runs import write_run
from zobench.report.page.build import page
from zobench.report.table import table

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

WAIT_S = 60  # generous: the machine may be busy
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser with a profile of its own; the tests are skipped where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with a chromedriver on the path")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    browser = webdriver.Chrome(options=options, service=service)
    browser.set_page_load_timeout(WAIT_S)
    browser.set_script_timeout(WAIT_S)
    yield browser
    browser.quit()


def until(browser: Any, condition: str) -> Any:
    """Wait until an expression of JavaScript is true, and return its value."""
    end = time.monotonic() + WAIT_S
    while not (value := browser.execute_script(f"return {condition}")):
        assert time.monotonic() < end, f"never true: {condition}"
        time.sleep(0.05)
    return value


def show(browser: Any, path: Path, width: int = 1280) -> None:
    """Open a page in a window of this width and wait until its chart is drawn."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(path.as_uri())
    until(browser, "document.querySelectorAll('.chart .line').length")


def said(browser: Any, selector: str) -> str:
    text: str = browser.execute_script(f"return document.querySelector('{selector}').textContent")
    return text


def paths(browser: Any) -> dict[str, str]:
    """The outline of each line of the chart, by its runs."""
    found: dict[str, str] = browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('.chart path.line[data-runs]')]"
        ".map((path) => [path.dataset.runs, path.getAttribute('d')]))"
    )
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a suite with every kind of outcome; AdamW spends one forward a step."""
    suite = tmp_path_factory.mktemp("runs") / "small"
    for seed in (0, 1):
        write_run(suite, seed)
        adamw = write_run(suite, seed, optimizer="adamw", lr=3e-3, steps=60) / "result.json"
        adamw.write_text(adamw.read_text().replace("0.91", "0.96").replace("0.90", "0.95"))
    write_run(suite, optimizer="sgd", status="diverged", reason="the loss is nan at step 40")
    write_run(suite, optimizer="lion", status="failed", reason="x" * 200, log="Traceback " * 90)
    write_run(suite, optimizer="sgd", lr=0.5, status="unfinished")
    path = suite / "report.html"
    path.write_text(page(suite.parent, suite.name), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Any, small: Path) -> Iterator[Any]:
    """The small page in a wide window; afterwards its console must be empty."""
    browser.get_log("browser")
    show(browser, small)
    yield browser
    assert browser.get_log("browser") == []


def click(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def test_another_axis_changes_title_and_lines(opened: Any) -> None:
    """A click on an axis draws the same runs against it, and says so under the axis."""
    before = paths(opened)
    assert said(opened, ".x-title").startswith("forwards")
    click(opened, "input[name=x][value='time/train_s']")
    until(opened, "document.querySelector('.x-title').textContent === 'seconds of training'")
    after = paths(opened)
    assert set(after) == set(before)
    click(opened, "input[name=x][value=step]")
    until(opened, "document.querySelector('.x-title').textContent === 'optimizer steps'")
    ticks = "[...document.querySelectorAll('.grid text')].map((t) => t.textContent)"
    assert "60" in opened.execute_script(f"return {ticks}")  # steps of the longest run


def test_metric_scale_and_smoothing_change_the_lines(opened: Any) -> None:
    """Each control draws the lines anew, and taking it back restores them."""
    seen = [paths(opened)]
    change = "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
    change += "e.dispatchEvent(new Event(arguments[2]))"

    def drawn() -> dict[str, str]:
        until(opened, "new Promise((done) => setTimeout(() => done(true), 120))")
        return paths(opened)

    opened.execute_script(change, "#choose-y", "train/loss", "change")
    seen.append(drawn())
    assert said(opened, ".y-title") == "train/loss"
    opened.execute_script(change, "#smooth", "0.9", "input")
    seen.append(drawn())
    click(opened, "#tick-logY")
    seen.append(drawn())
    assert said(opened, ".y-title") == "train/loss (logarithmic)"
    assert all(one != other for one, other in pairwise(seen))
    click(opened, "#tick-logY")
    assert drawn() == seen[2]


def test_the_legend_hides_and_shows(opened: Any) -> None:
    """A click on an entry takes the group's line away, a second one brings it back."""
    entry = ".legend .toggle[data-group=adamw]"
    line = "document.querySelectorAll('.chart .line[data-group=adamw]').length"
    assert opened.execute_script(f"return {line}") == 1
    click(opened, entry)
    until(opened, f"{line} === 0")
    assert opened.execute_script(
        f"return document.querySelector('{entry}').getAttribute('aria-pressed')"
    ) == ("false")
    click(opened, entry)
    until(opened, f"{line} === 1")


def test_a_single_run_can_be_hidden(opened: Any) -> None:
    """Lines of single runs: the button in the list takes away that run's line and no other."""
    click(opened, "input[name=mean][value=false]")
    until(opened, "document.querySelectorAll('.chart .line[data-group=mezo]').length === 2")
    before = set(paths(opened))
    click(opened, "tr.run[data-status=done] .eye")
    until(opened, f"document.querySelectorAll('.chart .line[data-runs]').length < {len(before)}")
    [gone] = before - set(paths(opened))
    row = "tr.run[data-status=done]"
    assert opened.execute_script(f"return document.querySelector('{row}').id") == f"run-{gone}"


def test_the_filter_narrows_chart_and_list(opened: Any) -> None:
    """Words in a filter box leave the runs that have all of them, in both places."""
    box = opened.find_element("css selector", "#runs input[type=search]")
    box.send_keys("mezo seed=1")
    until(opened, "document.querySelector('#runs .count').textContent === '1 of 7 runs'")
    assert len(paths(opened)) == 1
    box.send_keys(" nothing")
    until(opened, "!document.querySelector('.chart .empty').hidden")
    assert (
        opened.execute_script("return document.querySelectorAll('tr.run:not([hidden])').length")
        == 0
    )


def test_runs_open_and_failures_lead_to_them(opened: Any) -> None:
    """Failures stand first; a name there opens the run, whose details exist from then on."""
    assert said(opened, "main > section:not([hidden]) h2") == "Failures and unfinished runs"
    assert not opened.execute_script("return document.querySelector('.panes')")
    click(opened, ".failures .who button")
    assert "Traceback" in said(opened, ".panes .log")
    assert opened.execute_script("return document.activeElement.ariaExpanded") == "true"
    assert "optimizer.lr" in said(opened, ".panes .pairs")


def test_columns_sort(opened: Any) -> None:
    """A click on a head orders the table by it and says which way; a second one turns it."""
    first = "[...document.querySelectorAll('#table > .wide tbody th')].map((h) => h.textContent)"
    names = opened.execute_script(f"return {first}")
    click(opened, "#table > .wide thead button")
    assert opened.execute_script(f"return {first}") == sorted(names, key=str.casefold)
    click(opened, "#table > .wide thead button")
    assert opened.execute_script(f"return {first}") == sorted(names, key=str.casefold, reverse=True)
    assert opened.execute_script(
        "return document.querySelector('#table > .wide th').getAttribute('aria-sort')"
    ) == ("descending")


def test_the_keyboard_reads_the_chart(opened: Any) -> None:
    """Arrow keys on the chart show the values under its cursor, Escape takes them away."""
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    opened.find_element("css selector", ".chart > svg").send_keys(keys.ARROW_RIGHT)
    assert said(opened, ".tip p").startswith("forwards ")
    before = said(opened, ".tip")
    opened.find_element("css selector", ".chart > svg").send_keys(keys.ARROW_LEFT)
    assert said(opened, ".tip") != before
    opened.find_element("css selector", ".chart > svg").send_keys(keys.ESCAPE)
    assert opened.execute_script("return document.querySelector('.tip').hidden")


def saved(browser: Any, name: str) -> str:
    """The text of the file that a button of the page saves."""
    browser.execute_script(
        "URL.createObjectURL = (blob) => { window.kept = blob.text(); return 'data:,'; };"
        "HTMLAnchorElement.prototype.click = () => {};"
        "document.querySelector(`[data-save='${arguments[0]}']`).click()",
        name,
    )
    text: str = browser.execute_script("return window.kept")
    return text


def test_a_panel_shows_scores_against_a_setting(opened: Any) -> None:
    """A point per setting with a score, a ring where dev selected, and what differs on hovering."""
    dots = "document.querySelectorAll('#rates .dot').length"
    until(opened, f"{dots} === 2")  # mezo and adamw; the others have no result
    opened.execute_script(
        "const dot = document.querySelector('#rates .dot'), box = dot.getBoundingClientRect();"
        "const at = {clientX: box.x + 3, clientY: box.y + 3};"
        "dot.ownerSVGElement.dispatchEvent(new PointerEvent('pointermove', at))"
    )
    tip = said(opened, "#rates .tip")
    assert "dev/accuracy 90.0" in tip and "optimizer.lr0.00" in tip and "seeds0, 1" in tip
    opened.execute_script(
        "const e = document.querySelector('#rates-x'); e.value = 'budget.steps';"
        "e.dispatchEvent(new Event('change'))"
    )
    assert said(opened, "#rates .x-title") == "budget.steps"


def test_panels_of_several_tasks_are_drawn_for_the_width_they_have(
    browser: Any, tmp_path: Path
) -> None:
    """The number of panels decides how wide each is, also the first that is drawn."""
    for task in ("sst2", "rte", "boolq"):
        for lr in (1e-3, 1e-2):
            write_run(tmp_path / "s", task=task, lr=lr)
    path = tmp_path / "report.html"
    path.write_text(page(tmp_path, "s"), encoding="utf-8")
    show(browser, path)
    until(browser, "document.querySelectorAll('#rates figure > svg').length === 3")
    widths = browser.execute_script(
        "return [...document.querySelectorAll('#rates figure > svg')]"
        ".map((svg) => [svg.viewBox.baseVal.width, svg.clientWidth])"
    )
    assert all(drawn == has for drawn, has in widths)


def test_parallel_coordinates_have_a_line_per_setting_with_results(opened: Any) -> None:
    """The best on dev is thick; a click opens the run."""
    until(opened, "document.querySelectorAll('#parallel path.line').length === 2")
    assert opened.execute_script("return document.querySelector('#parallel .line.best') !== null")
    axes = "[...document.querySelectorAll('#parallel .x-title')].map((t) => t.textContent)"
    assert opened.execute_script(f"return {axes}")[:2] == ["optimizer", "optimizer.lr"]


def test_rows_are_compared_with_a_chosen_one(opened: Any) -> None:
    """Mean difference and interval over seeds, the other way round for the other baseline."""
    row = "document.querySelector('#compare tbody tr')"
    assert opened.execute_script(f"return {row}.cells[0].textContent") == "adamw"
    assert opened.execute_script(f"return {row}.cells[5].textContent") == "2"
    opened.execute_script(
        "const e = document.querySelector('#compare-baseline'); e.value = 'adamw';"
        "e.dispatchEvent(new Event('change'))"
    )
    assert opened.execute_script(f"return {row}.cells[0].textContent") == "mezo"
    assert said(opened, "#compare thead th:nth-child(3)") == "minus adamw"
    click(opened, "#compare details summary")
    until(opened, "document.querySelector('#compare .pairs') !== null")
    assert "0.001 instead of 0.003" in said(opened, "#compare .pairs")


def test_an_address_opens_a_run(opened: Any, small: Path) -> None:
    """`#run-ID` is a link to that run, and each section has one to itself."""
    run = opened.execute_script("return document.querySelector('tr.run').id")
    opened.execute_script("location.hash = arguments[0]", f"#{run}")
    until(opened, f"document.querySelector('#{run} .open').ariaExpanded === 'true'")
    assert said(opened, f"#{run}-body a") == "Link to this run"
    links = "[...document.querySelectorAll('h2 .anchor')].map((a) => a.getAttribute('href'))"
    assert {"#table", "#curves", "#rates", "#compare", "#runs"} <= set(
        opened.execute_script(f"return {links}")
    )
    opened.get(f"{small.as_uri()}#{run}")
    until(opened, f"document.querySelector('#{run}-body') !== null")


def test_the_best_run_is_marked(opened: Any) -> None:
    """A star in the list; the best number of the table is bold."""
    assert "best on dev" in said(opened, "tr.run[data-status=done] .star")
    assert said(opened, "#table td.best span") == said(opened, "#table tbody td span")


def test_tables_are_saved_as_csv(opened: Any, small: Path) -> None:
    """The table's is that of `zobench table`; runs and curves have what is shown."""
    frame = table(small.parents[1], small.parent.name, format="csv")
    assert saved(opened, "table.csv") == frame
    [head, *runs] = csv.reader(io.StringIO(saved(opened, "runs.csv")))
    assert len(runs) == 7 and {"folder", "best", "optimizer.lr", "test/accuracy"} <= set(head)
    [head, *points] = csv.reader(io.StringIO(saved(opened, "curves.csv")))
    assert head == ["group", "line", "seeds", "cost/forwards", "dev/accuracy", "low", "high"]
    assert {"mezo", "adamw"} <= {point[0] for point in points}
    assert len(saved(opened, "compare.csv").splitlines()) == 2


@pytest.mark.parametrize("name", ["curves.svg", "settings-reviews.svg", "parallel.svg"])
def test_figures_are_saved_as_svg(opened: Any, name: str) -> None:
    """A file of its own: lines with colours, a legend, and no reference to the page's styles."""
    until(opened, "document.querySelectorAll('#parallel path.line').length")
    text = saved(opened, name)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in text
    lines = [path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("d")]
    assert lines and all(
        "rgb" in str(path.get("stroke")) for path in lines if path.get("data-runs")
    )
    assert "mezo" in text and "adamw" in text


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_is_as_wide_as_the_window(browser: Any, small: Path, width: int) -> None:
    """Nothing makes the page scroll sideways, with every run opened."""
    show(browser, small, width)
    browser.execute_script("document.querySelectorAll('.open').forEach((b) => b.click())")
    browser.execute_script("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    until(browser, "new Promise((done) => setTimeout(() => done(true), 120))")
    wide = "document.documentElement.scrollWidth"
    assert browser.execute_script(f"return {wide}") <= width


def test_five_hundred_runs(
    browser: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A page of 500 runs opens and answers; how long it took is recorded."""
    suite = tmp_path / "large"
    for number in range(500):
        write_run(suite, number % 5, lr=1e-3 * (1 + number // 5), steps=120)
    path = suite / "report.html"
    path.write_text(page(suite.parent, suite.name), encoding="utf-8")
    start = time.monotonic()
    show(browser, path)
    record_property("seconds to the chart", round(time.monotonic() - start, 2))
    assert browser.execute_script("return document.querySelectorAll('tr.run').length") == 500
    start = time.monotonic()
    click(browser, "input[name=mean][value=false]")
    click(browser, "#tick-selected")
    until(browser, "document.querySelectorAll('.chart .line').length === 500")
    record_property("seconds to 500 lines", round(time.monotonic() - start, 2))
    assert browser.get_log("browser") == []
