"""The report as a reader meets it: opened from disk in Chromium, by mouse and by keyboard, light, dark and on paper."""

from __future__ import annotations

import base64
import threading
import time
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from chromium import SHOTS, Shot, medium
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tilesmith.cli.report import chronicle
from tilesmith.cli.serve import Desk, handler
from tilesmith.core.graph import Accumulate, Graph, Kernel, Load, Op, Store, Tensor, Thread
from tilesmith.core.trial import Wrong
from tilesmith.journal import RunOptions, open_store
from tilesmith.report.chronicle import Drawing
from tilesmith.report.page import page
from tilesmith.superopt.draw import svg
from tilesmith.testing.history import History, history, recorded

CRACK = "window.cracked=1"
HOSTILE = f"</script><script>{CRACK}</script><img src=x onerror='{CRACK}'>\"><svg onload='{CRACK}'>"
PARTS = ("found", "progress", "lineage", "roofline", "techniques", "verdicts", "models", "time", "graphs", "again")

GRAPH = Graph(
    (Tensor((64, 256), "bf16", "x"), Tensor((256, 64), "bf16", "w")),
    (
        Kernel(
            (4,),
            2,
            (Load(0, (0,), 1), Load(1, (None,), 0)),
            (
                Op("matmul", (0, 1)),
                Accumulate("sum", (2,)),
                Thread((3,), (Op("silu", (0,)), Op("mul", (0, 1)))),
            ),
            (Store(4, (0,)),),
        ),
    ),
    (2,),
)


def written(folder: Path, made: History, name: str = "report") -> Path:
    """A journal, and the page of its run, made as the command makes it."""
    run = recorded(made, folder / "tilesmith.db")
    with open_store(folder / "tilesmith.db") as store:
        told = chronicle(store.run(run))
    told = replace(told, drawings=(Drawing("µGraph 1: fused", svg(GRAPH), "the same in words", 1),))
    path = folder / f"{name}.html"
    path.write_text(page(told), "utf-8")
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("report"), history(80, began_s=time.time()))


def opened(chrome: Chrome, path: Path) -> float:
    """Seconds until it is drawn, by the browser's own clock."""
    chrome.get(path.as_uri())
    return (
        float(chrome.execute_script("return performance.timing.loadEventEnd - performance.timing.navigationStart"))
        / 1e3
    )


def detail(chrome: Chrome) -> WebElement:
    """The open panel of a trial, with its content."""
    panel = chrome.find_element(By.ID, "detail")
    WebDriverWait(chrome, 10).until(
        lambda _: panel.is_displayed() and panel.find_elements(By.CSS_SELECTOR, "#detail-body *")
    )
    return panel


def shown(chrome: Chrome, number: str) -> WebElement:
    """The panel of this trial, reached by its address."""
    chrome.execute_script("location.hash = arguments[0]", f"#trial-{number}")
    panel = detail(chrome)
    WebDriverWait(chrome, 10).until(lambda _: panel.text.startswith(f"Trial {number}:"))
    return panel


def test_every_view_has_content(chrome: Chrome, report: Path, shot: Shot) -> None:
    opened(chrome, report)
    for part in PARTS:
        section = chrome.find_element(By.ID, part)
        assert section.is_displayed(), part
        assert section.size["height"] > 100, part
        assert len(section.text) > 60, part
    pictures = chrome.find_elements(By.CSS_SELECTOR, ".plot svg")
    assert len(pictures) == 9
    for picture in pictures:
        assert picture.size["width"] > 200
        assert len(picture.find_elements(By.CSS_SELECTOR, "path, rect, line")) > 5
    # The drawing is a picture that was really drawn.
    image = chrome.find_element(By.CSS_SELECTOR, "#graphs img")
    assert chrome.execute_script("return arguments[0].complete && arguments[0].naturalWidth > 100", image)
    shot("report-light")


def test_the_same_in_dark(chrome: Chrome, report: Path, shot: Shot) -> None:
    medium(chrome, dark=True)
    opened(chrome, report)

    def luminance(style: str) -> float:
        red, green, blue = (float(part) for part in style.partition("(")[2].rstrip(")").split(",")[:3])
        return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255

    body = chrome.find_element(By.TAG_NAME, "body")
    assert luminance(body.value_of_css_property("background-color")) < 0.15
    assert luminance(body.value_of_css_property("color")) > 0.7
    # Charts take the page's colours, not their own.
    label = chrome.find_element(By.CSS_SELECTOR, "#progress .plot svg text")
    assert luminance(label.value_of_css_property("fill")) > 0.4
    shot("report-dark")


def test_on_paper(chrome: Chrome, report: Path, shot: Shot) -> None:
    medium(chrome, dark=True, paper=True)
    opened(chrome, report)
    body = chrome.find_element(By.TAG_NAME, "body")
    assert body.value_of_css_property("background-color") == "rgba(255, 255, 255, 1)"
    assert not chrome.find_element(By.CSS_SELECTOR, "header.top").is_displayed()
    assert chrome.find_element(By.CSS_SELECTOR, "#tree").is_displayed()
    shot("report-print")
    printed = chrome.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
    pdf = base64.b64decode(printed["data"])
    (SHOTS / "report-print.pdf").write_bytes(pdf)
    assert pdf.startswith(b"%PDF")
    assert 3 < pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") < 40


def test_on_a_narrow_screen_nothing_overflows(chrome: Chrome, report: Path, shot: Shot) -> None:
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened(chrome, report)
        assert chrome.execute_script("return document.documentElement.scrollWidth") <= 390
        shot("report-narrow")
    finally:
        chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_row_shows_source_difference_verdict_and_profile(chrome: Chrome, report: Path) -> None:
    opened(chrome, report)
    rows = chrome.find_elements(By.CSS_SELECTOR, "#tree tbody tr.v-correct")
    child = next(row for row in rows if row.get_attribute("aria-level") != "1" and row.is_displayed())
    child.click()
    panel = detail(chrome)
    assert f"Trial {child.get_attribute('data-trial')}" in panel.text
    heads = [head.text for head in panel.find_elements(By.TAG_NAME, "h3")]
    assert {"Difference to its parent", "Source", "Profile", "Launches", "The model’s reply"} <= set(heads)
    assert panel.find_elements(By.CSS_SELECTOR, ".diff .add, .diff .cut")
    fold = next(each for each in panel.find_elements(By.TAG_NAME, "details") if "whole source" in each.text)
    fold.find_element(By.TAG_NAME, "summary").click()
    assert "def kernel_function(x, w):" in fold.text
    assert "row_kernel" in panel.text
    # The parent is one click away, and so is the way back.
    parent = panel.find_element(By.CSS_SELECTOR, "a[href^='#trial-']")
    name = parent.text
    parent.click()
    WebDriverWait(chrome, 10).until(lambda _: name.capitalize() in panel.text.splitlines()[0])
    chrome.save_screenshot(str(SHOTS / "report-detail.png"))
    chrome.find_element(By.ID, "close").click()
    assert not panel.is_displayed()


def test_the_difference_is_the_difference(chrome: Chrome, report: Path) -> None:
    """What the panel shows as cut and added, applied to the parent, is the child."""
    opened(chrome, report)
    found = chrome.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        const text = atob(document.getElementById("archive").textContent.trim());
        const packed = Uint8Array.from(text, (c) => c.charCodeAt(0));
        const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
        new Response(stream).text().then((text) => done(JSON.parse(text)));
        """
    )
    checked = 0
    for number, entry in found.items():
        if entry["parent"] is None or checked == 12:
            continue
        shown(chrome, number)
        lines = chrome.execute_script(
            "return [...document.querySelectorAll('.diff span')].map((line) => [line.className, line.textContent])"
        )
        parent = found[str(entry["parent"])]["source"].split("\n")
        child = entry["source"].split("\n")
        cut, added = ([text for kind, text in lines if kind == name] for name in ("cut", "add"))
        assert len(parent) - len(cut) == len(child) - len(added)
        assert subsequence(cut, parent)
        assert subsequence(added, child)
        checked += 1
    assert checked == 12


def subsequence(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(line in rest for line in part)


def test_the_tree_is_walked_by_keyboard(chrome: Chrome, report: Path) -> None:
    opened(chrome, report)
    first = chrome.find_element(By.CSS_SELECTOR, "#tree tbody tr")
    # One station of the tab key for the whole tree.
    assert len(chrome.find_elements(By.CSS_SELECTOR, "#tree tbody tr[tabindex='0']")) == 1
    find = chrome.find_element(By.ID, "find")
    find.click()
    for _ in range(3):
        ActionChains(chrome).send_keys(Keys.TAB).perform()
    while chrome.switch_to.active_element.tag_name != "tr":
        ActionChains(chrome).send_keys(Keys.TAB).perform()
    assert chrome.switch_to.active_element == first

    def press(key: str) -> WebElement:
        ActionChains(chrome).send_keys(key).perform()
        return chrome.switch_to.active_element

    assert first.get_attribute("aria-expanded") == "true"
    shown = len([row for row in chrome.find_elements(By.CSS_SELECTOR, "#tree tbody tr") if row.is_displayed()])
    assert press(Keys.ARROW_LEFT) == first
    assert first.get_attribute("aria-expanded") == "false"
    folded = len([row for row in chrome.find_elements(By.CSS_SELECTOR, "#tree tbody tr") if row.is_displayed()])
    assert folded < shown
    press(Keys.ARROW_RIGHT)
    second = press(Keys.ARROW_DOWN)
    assert second != first
    assert second.get_attribute("aria-level") == "2"
    assert press(Keys.ARROW_UP) == first
    press(Keys.END)
    assert press(Keys.HOME) == first
    press(Keys.ARROW_DOWN)
    press(Keys.ENTER)
    panel = detail(chrome)
    WebDriverWait(chrome, 10).until(lambda _: chrome.switch_to.active_element.get_attribute("id") == "detail-title")
    assert second.get_attribute("aria-selected") == "true"
    assert press(Keys.ESCAPE) == second
    assert not panel.is_displayed()


def test_a_point_of_a_chart_opens_its_kernel(chrome: Chrome, report: Path) -> None:
    opened(chrome, report)
    # The last is drawn on top, so that a click reaches it.
    point = chrome.find_elements(By.CSS_SELECTOR, "#roofline .plot a")[-1]
    number = (point.get_attribute("href") or point.get_dom_attribute("xlink:href") or "").rpartition("trial-")[2]
    chrome.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(chrome).move_to_element(point.find_element(By.TAG_NAME, "path")).click().perform()
    assert detail(chrome).text.startswith("Trial ")
    assert number in ("", detail(chrome).text.split(":")[0].removeprefix("Trial "))
    # Points are no stations of the tab key.
    assert not chrome.find_elements(By.CSS_SELECTOR, ".plot a:not([tabindex='-1'])")


def test_the_tree_can_be_searched(chrome: Chrome, report: Path) -> None:
    opened(chrome, report)
    chrome.find_element(By.ID, "find").send_keys("rejected")
    rows = [row for row in chrome.find_elements(By.CSS_SELECTOR, "#tree tbody tr") if row.is_displayed()]
    assert rows
    assert all("rejected" in row.text for row in rows)
    chrome.find_element(By.ID, "find").clear()
    chrome.find_element(By.ID, "find").send_keys(" ")
    chrome.find_element(By.ID, "unfold").click()
    assert all(row.is_displayed() for row in chrome.find_elements(By.CSS_SELECTOR, "#tree tbody tr"))
    chrome.find_element(By.ID, "fold").click()
    assert all(
        "win" in row.get_attribute("class")
        for row in chrome.find_elements(By.CSS_SELECTOR, "#tree tbody tr")
        if row.is_displayed()
    )


def test_it_is_readable_by_a_screen_reader(chrome: Chrome, report: Path) -> None:
    """By the tree that the browser gives to one."""
    opened(chrome, report)
    chrome.execute_cdp_cmd("Accessibility.enable", {})
    nodes = chrome.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    chrome.execute_cdp_cmd("Accessibility.disable", {})
    told = [
        (node.get("role", {}).get("value"), node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored")
    ]
    assert ("main", "") in told
    assert sum(role == "heading" for role, _ in told) >= len(PARTS)
    images = [name for role, name in told if role in ("image", "img")]
    assert len(images) >= 10
    assert all(len(name) > 20 for name in images)
    assert ("treegrid", "Who descends from whom") in told
    assert not [name for role, name in told if role in ("button", "link", "searchbox") and not name.strip()]


def test_hostile_strings_stay_text(chrome: Chrome, tmp_path: Path) -> None:
    made = history(24, models=(f"gate:{HOSTILE}",))
    trials = tuple(
        replace(
            trial,
            candidate=replace(trial.candidate, source=f"{trial.candidate.source}# {HOSTILE}\n"),
            verdict=Wrong(HOSTILE) if isinstance(trial.verdict, Wrong) else trial.verdict,
            evidence=(HOSTILE,),
            protection=HOSTILE,
            launches=tuple(replace(launch, kernel=HOSTILE) for launch in trial.launches),
        )
        for trial in made.trials
    )
    replies = tuple(replace(reply, text=HOSTILE) for reply in made.replies)
    problem = replace(made.problem, name=HOSTILE, source=HOSTILE)
    path = written(tmp_path, replace(made, trials=trials, confirmations=(), replies=replies, problem=problem))
    opened(chrome, path)
    for row in chrome.find_elements(By.CSS_SELECTOR, "#tree tbody tr")[:24]:
        number = row.get_attribute("data-trial")
        panel = shown(chrome, str(number))
        for fold in panel.find_elements(By.TAG_NAME, "details"):
            chrome.execute_script("arguments[0].open = true", fold)
    assert HOSTILE in chrome.find_element(By.TAG_NAME, "h1").text
    assert HOSTILE in detail(chrome).text
    assert chrome.execute_script("return window.cracked") is None
    assert len(chrome.find_elements(By.CSS_SELECTOR, "script")) == 2
    assert not chrome.find_elements(By.CSS_SELECTOR, "img[src='x'], [onload], [onerror]")


def test_an_estimated_run_says_so(chrome: Chrome, tmp_path: Path, shot: Shot) -> None:
    opened(chrome, written(tmp_path, history(30, measured=False)))
    assert "Every time on this page is an estimate" in chrome.find_element(By.ID, "found").text
    shot("report-estimated")


def test_two_thousand_trials_open(chrome: Chrome, tmp_path: Path, shot: Shot) -> None:
    path = written(tmp_path, history(300))
    opened(chrome, path)
    rows = chrome.find_elements(By.CSS_SELECTOR, "#tree tbody tr")
    assert len(rows) > 250
    # Of so many only the best's line is unfolded.
    assert sum(row.is_displayed() for row in rows) < len(rows)
    shot("report-many")


def test_a_page_that_is_served_follows_the_run(chrome: Chrome, tmp_path: Path) -> None:
    made = history(14, began_s=time.time())
    with open_store(tmp_path / "live.db") as store:
        run = store.create(made.problem, RunOptions("{}"))
        for trial in made.trials[:5]:
            run.record(trial)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(Desk(run, "", frozenset({"127.0.0.1"}))))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            chrome.get(f"http://127.0.0.1:{server.server_address[1]}/")
            assert "Running now" in chrome.find_element(By.ID, "found").text
            assert len(chrome.find_elements(By.CSS_SELECTOR, "#tree tbody tr")) == 5
            chrome.execute_script("window.same = 1")
            chrome.find_element(By.CSS_SELECTOR, "#progress summary").click()
            for trial in made.trials[5:]:
                run.record(trial)
            wait = WebDriverWait(chrome, 30)
            wait.until(lambda _: len(chrome.find_elements(By.CSS_SELECTOR, "#tree tbody tr")) == len(made.trials))
            # The page was not loaded anew, and what was open is open.
            assert chrome.execute_script("return window.same") == 1
            assert chrome.find_element(By.CSS_SELECTOR, "#progress details").get_attribute("open")
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            chrome.get("about:blank")
