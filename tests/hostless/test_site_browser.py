"""A site in a real browser: it draws, answers, fits, and needs neither network nor script."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.common.exceptions import SessionNotCreatedException
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from discovery_xp.analysis.measurements import measured
from discovery_xp.site.content import Content
from discovery_xp.site.writing import write_site
from tests.unit.synthetic_run import make_run
from tests.waiting import wait_until

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
PAGES = ("index.html", "tables.html", "figures.html", "runs.html")
DESKTOP, PHONE = (1400, 900), (390, 844)
# The real tests' hosts would leave a browser too little of the processors to start in time.
NICENESS = -10
ATTEMPTS = 3


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a site of runs on two back ends, in both layouts."""
    folder = tmp_path_factory.mktemp("browser")
    runs = [
        make_run(folder / "results", started=f"2026-11-23T16:0{number}:00Z", sites=2,
                 latency_ms=50.0, backend=backend, data=2 * (backend == "rome"),
                 more_options={"layout": "cells"} if cells else {})
        for number, (backend, cells) in enumerate(
            (("mysql", False), ("rome", False), ("mysql", True), ("rome", True))
        )
    ]  # fmt: skip
    write_site(folder / "site", Content(measured(runs), "Two back ends"))
    return folder / "site"


def _browser(folder: Path, with_script: bool = True) -> Iterator[Chrome]:
    options = Options()
    options.binary_location = str(BROWSER)
    for argument in (
        "--headless=new",
        "--no-sandbox",  # root has none
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",  # nothing is asked of any network
        f"--user-data-dir={folder}/profile-{with_script}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if not with_script:
        options.add_experimental_option(
            "prefs", {"profile.managed_default_content_settings.javascript": 2}
        )
    browser = _started(options)
    try:
        browser.set_page_load_timeout(120)
        yield browser
    finally:
        browser.quit()


def _started(options: Options) -> Chrome:
    """Start a browser; a busy machine may have too little for it at the first try."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)  # what is started inherits it
    try:
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(SessionNotCreatedException):
                return Chrome(options, Service(str(DRIVER)))
        return Chrome(options, Service(str(DRIVER)))
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, own)


@pytest.fixture(scope="module")
def browser(site: Path) -> Iterator[Chrome]:
    """Start a browser for all tests."""
    yield from _browser(site.parent)


def show(browser: Chrome, site: Path, page: str, window: tuple[int, int] = DESKTOP) -> None:
    """Open a page in a window of a size, and wait for its figures."""
    width, height = window
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"file://{site}/{page}")
    wait_until(lambda: not unfinished(browser))


def unfinished(browser: Chrome) -> list[WebElement]:
    """Return the figures that have data and aren't drawn yet."""
    return [
        figure
        for figure in browser.find_elements(By.CSS_SELECTOR, "figure.plot")
        if figure.find_elements(By.CSS_SELECTOR, "script")
        and not figure.find_elements(By.CSS_SELECTOR, ".canvas .main-svg")
    ]


def bars(browser: Chrome) -> int:
    return len(browser.find_elements(By.CSS_SELECTOR, "#time-to-create-the-vms .bars .point"))


@pytest.mark.parametrize("window", [DESKTOP, PHONE])
@pytest.mark.parametrize("page", PAGES)
def test_pages_fit_their_window_and_nothing_goes_wrong(
    browser: Chrome, site: Path, page: str, window: tuple[int, int]
) -> None:
    show(browser, site, page, window)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= window[0]
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    for figure in browser.find_elements(By.CSS_SELECTOR, "figure.plot"):
        if figure.find_elements(By.CSS_SELECTOR, "script"):
            assert figure.find_element(By.CSS_SELECTOR, ".canvas").size["height"] > 200
            assert not any(
                image.is_displayed() for image in figure.find_elements(By.TAG_NAME, "img")
            )


@pytest.mark.parametrize("window", [DESKTOP, PHONE])
def test_a_run_is_two_clicks_away(browser: Chrome, site: Path, window: tuple[int, int]) -> None:
    show(browser, site, "index.html", window)
    browser.find_element(By.LINK_TEXT, "Runs").click()
    browser.find_element(By.LINK_TEXT, "#2").click()
    assert "rome" in browser.title or "rome" in browser.find_element(By.TAG_NAME, "body").text
    images = browser.find_elements(By.TAG_NAME, "img")
    assert images
    loaded = "return [...document.images].every((each) => each.complete && each.naturalWidth > 0)"
    wait_until(lambda: browser.execute_script(loaded))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= window[0]


def test_rows_and_bars_are_chosen_by_back_end_and_layout(browser: Chrome, site: Path) -> None:
    show(browser, site, "tables.html")

    def rows() -> int:
        found = browser.find_elements(By.CSS_SELECTOR, "#site-runs ~ .scroll tbody tr")
        return sum(row.is_displayed() for row in found)

    assert rows() == 4
    browser.find_element(By.CSS_SELECTOR, "input[value=rome]").click()
    wait_until(lambda: rows() == 2)
    browser.find_element(By.CSS_SELECTOR, "input[value=cells]").click()
    wait_until(lambda: rows() == 1)
    assert "rows are left out" in browser.find_element(By.CSS_SELECTOR, ".controls .note").text

    show(browser, site, "figures.html")
    before = bars(browser)
    browser.find_element(By.CSS_SELECTOR, "input[value=rome]").click()
    wait_until(lambda: 0 < bars(browser) < before)
    browser.find_element(By.CSS_SELECTOR, "input[value=rome]").click()
    wait_until(lambda: bars(browser) == before)


def test_axes_are_linear_or_logarithmic_and_figures_chosen(browser: Chrome, site: Path) -> None:
    show(browser, site, "figures.html")
    figure = browser.find_element(By.ID, "each-run")
    kind = "return arguments[0].querySelector('.canvas').layout.yaxis.type"
    assert browser.execute_script(kind, figure) != "log"
    figure.find_element(By.CSS_SELECTOR, "button[data-axis=y]").click()
    wait_until(lambda: browser.execute_script(kind, figure) == "log")
    figure.find_element(By.CSS_SELECTOR, "button[data-axis=y]").click()
    wait_until(lambda: browser.execute_script(kind, figure) == "linear")
    figure.find_element(By.XPATH, ".//option[text()='statements per VM']").click()
    values = "return arguments[0].querySelector('.canvas').data[0].y"
    wait_until(lambda: browser.execute_script(values, figure) == [7, 7])  # 126 statements, 18 VMs


def test_a_point_opens_its_run(browser: Chrome, site: Path) -> None:
    show(browser, site, "figures.html")
    browser.execute_script(
        "const canvas = document.querySelector('#each-run .canvas');"
        "canvas.emit('plotly_click', {points: [{data: canvas.data[1], pointNumber: 1}]});"
    )
    wait_until(lambda: "/runs/" in browser.current_url)
    assert "page-20261123T160300Z" in browser.current_url


def test_without_a_script_figures_are_images(site: Path) -> None:
    for browser in _browser(site.parent, with_script=False):
        browser.get(f"file://{site}/figures.html")
        images = browser.find_elements(By.CSS_SELECTOR, "figure.plot img")
        assert len(images) >= 4
        assert all(image.is_displayed() for image in images)
        assert not browser.find_element(By.CSS_SELECTOR, ".controls").is_displayed()


def test_where_the_library_is_left_out_figures_are_images(
    browser: Chrome, site: Path, tmp_path: Path
) -> None:
    """So is the site that the repository has: it contains nothing of others."""
    page = (site / "figures.html").read_text().replace("assets/plotly.min.js", "assets/none.js")
    (site / "without.html").write_text(page)
    browser.get(f"file://{site}/without.html")
    wait_until(lambda: browser.find_element(By.CSS_SELECTOR, ".controls").is_displayed())
    images = browser.find_elements(By.CSS_SELECTOR, "figure.plot img")
    assert all(image.is_displayed() for image in images)
    browser.get_log("browser")  # that a file is missing
