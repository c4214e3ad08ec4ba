"""The report in a real browser: what it shows, what moves, what it saves, and names that try to run."""

import base64
import json
import shutil
import time

import pandas as pd
import pytest

import predict
import report
from src.artifacts.manifest import read_manifest
from src.report.explorer import CONFIDENCES, RECALLS
from tests.page_runs import CLASSES, make_run, page_data, random_run, search

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed, so no browser is driven")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium with chromedriver is installed")

HOSTILE = (
    "</script><script>window.ran=1</script>",
    "<img src=x onerror=window.ran=1>",
    "a \"b\" 'c' & d, e",
    "Pneumothorax é \u2028 氣胸",
    "__proto__",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.downloads = downloads
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with its report."""
    run = make_run(tmp_path_factory.mktemp("browser") / "run")
    report.main(["--run-dir", str(run)])
    return run


@pytest.fixture
def page(browser, run):
    """The report, opened from disk at the size of a desk."""
    resize(browser, 1360, 900)
    return opened(browser, run / "report.html")


def opened(browser, path):
    browser.get(path.as_uri())
    assert browser.get_log("browser") == []
    return browser


def resize(browser, width, height, scheme="light"):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})


def text_of(page, selector):
    return page.execute_script("return document.querySelector(arguments[0]).innerText", selector)


def move(page, dial, value):
    script = (
        "const d = document.getElementById(arguments[0]); d.value = arguments[1]; d.dispatchEvent(new Event('input'))"
    )
    page.execute_script(script, dial, value)


def press(page, selector, key):
    """One key on the element, as the keyboard sends it."""
    page.execute_script("document.querySelector(arguments[0]).focus()", selector)
    webdriver.ActionChains(page).send_keys(key).perform()


def table(page):
    """Per finding the texts of its cells, by the label a phone shows, without the small line under a figure."""
    return page.execute_script("""
        return [...document.querySelectorAll("#findings tbody tr")].map((row) => Object.fromEntries([
          ["name", row.querySelector("th").firstChild.textContent],
          ["status", row.querySelector(".status").textContent],
          ...[...row.querySelectorAll("td")].map((cell) => [cell.dataset.label,
            (cell.firstChild && cell.firstChild.textContent) || ""]),
          ...[...row.querySelectorAll("td span.muted")].map((cell) => ["small " + cell.parentNode.dataset.label,
            cell.textContent]),
        ]))""")


def printed(run, capsys, *flags):
    """What stage 6 prints: per class the row of the certified rule, and the workload; {name: [cells], ...} each."""
    capsys.readouterr()
    search(run, *flags)
    lines = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    rows = {cells[0]: cells[2:] for cells in lines if len(cells) == 10 and cells[1] == "certified"}
    work = {cells[0]: cells[2:] for cells in lines if len(cells) == 5 and cells[0] != "Class"}
    return rows, work


def test_it_opens_on_what_stage_6_chose_and_asks_for_nothing_else(page, run):
    assert text_of(page, "h1") == "What does a recall target cost, per finding?"
    assert (text_of(page, "#recall-value"), text_of(page, "#confidence-value")) == ("0.85", "95%")
    assert [row["name"] for row in table(page)] == list(CLASSES)
    loaded = page.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert loaded == []
    shown = page.execute_script("return [...document.images].map((one) => [one.naturalWidth, one.alt])")
    assert len(shown) == 12 and all(width > 500 and len(alt) > 50 for width, alt in shown)
    html = (run / "report.html").read_text()
    assert "default-src 'none'" in html and "http://" not in html.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("recall", ["0.85", "0.9"])
def test_the_table_is_what_stage_6_prints_to_the_digit(page, run, capsys, recall):
    rows, work = printed(run, capsys, "--recall", recall)
    search(run)
    page.execute_script(
        f"[...document.querySelectorAll('#presets button')].find((b) => b.innerText === '{recall}').click()"
    )
    shown = table(page)
    assert len(shown) == len(rows) == len(CLASSES)
    for row in shown:
        threshold, val_precision, val_recall, lower, precision, found, _, status = rows[row["name"]]
        assert (row["Threshold"], row["Precision on test"], row["Recall on test"]) == (threshold, precision, found)
        bound = "" if lower == "n/a" else f", at least {lower}"
        assert row["small Recall on test"] == f"val {val_recall}{bound}"
        assert row["small Precision on test"] == f"val {val_precision}"
        assert row["status"] == status
        names = ("Flagged per 1,000", "Missed per 1,000", "Falsely flagged per 1,000")
        assert [row[name] for name in names] == work[row["name"]]
    ids = ("any-flagged", "any-missed", "any-false")
    assert [text_of(page, f"#{name}") for name in ids] == work["at least one finding"]


def test_the_slider_moves_the_table_the_point_and_the_words(page):
    def point():
        return page.execute_script("return document.querySelector('#curves path.point').getAttribute('d')")

    before, place, words = table(page), point(), text_of(page, "#summary")
    move(page, "recall", RECALLS.index(0.6))
    after = table(page)
    assert text_of(page, "#recall-value") == "0.6"
    assert float(after[0]["Threshold"]) > float(before[0]["Threshold"])
    assert int(after[0]["Missed per 1,000"]) > int(before[0]["Missed per 1,000"])
    assert point() != place and text_of(page, "#summary") != words
    move(page, "confidence", 0)
    assert text_of(page, "#confidence-value") == "none (empirical rule)"
    assert float(table(page)[0]["Threshold"]) >= float(after[0]["Threshold"])
    assert "at least" not in table(page)[0]["small Recall on test"]


def test_a_finding_with_too_few_patients_is_infeasible_and_says_how_many_are_missing(page):
    rare = table(page)[CLASSES.index("Rare")]
    assert rare["status"].startswith("infeasible, flags all: ") and rare["Threshold"] == "0.000"
    hidden = page.execute_script("""
        return [...document.querySelectorAll("#curves figure")].map((panel) =>
          ["path.point", "circle.hollow"].map((one) => panel.querySelector(one).checkVisibility()))""")
    assert dict(zip(CLASSES[:3], hidden, strict=False)) == {
        "Edema": [True, False],
        "Rare": [False, True],
        "Common": [True, False],
    }
    move(page, "confidence", 0)
    assert table(page)[CLASSES.index("Rare")]["status"] == "ok"


def test_the_keyboard_alone_moves_keeps_and_saves(page):
    keys = webdriver.Keys
    press(page, "#recall", keys.ARROW_RIGHT)
    assert text_of(page, "#recall-value") == "0.855"
    assert page.execute_script("return document.getElementById('recall').getAttribute('aria-valuetext')") == "0.855"
    time.sleep(0.7)
    assert text_of(page, "#live") == text_of(page, "#summary")  # what a screen reader hears
    press(page, "#findings input[type=checkbox]", keys.SPACE)
    assert text_of(page, "#findings tr.kept .keep .muted") == "0.855 at 95%"
    order = page.execute_script("""
        const all = [...document.querySelectorAll("a, button, input, select, summary")];
        return all.filter((one) => one.tabIndex < 0).length
        """)
    assert order == 0
    outline = page.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_what_was_chosen_is_not_half_restored_on_the_way_back(page):
    """Of Keep, the slider and a prevalence, the browser would restore the marks and not what they stand for."""
    press(page, "#findings input[type=checkbox]", webdriver.Keys.SPACE)
    move(page, "recall", RECALLS.index(0.6))
    page.get("about:blank")
    page.back()
    shown = (
        "return [document.getElementById('recall').value, document.querySelector('.keep input').checked,"
        " document.querySelectorAll('tr.kept').length, document.getElementById('recall-value').textContent]"
    )
    value, ticked, kept, text = page.execute_script(shown)
    assert RECALLS[int(value)] == float(text) and ticked == bool(kept)


def test_precision_at_another_prevalence_is_stage_6s(page, run, capsys):
    search(run, "--recall", "0.85", "--prevalence", "Edema=0.05")
    last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Edema")][-1]
    search(run)
    field = "#findings input[type=number]"
    press(page, field, "0.05")
    assert text_of(page, "#findings .there output") == last.split("|")[-1].strip()
    press(page, field, webdriver.Keys.BACKSPACE * 2 + "0" + webdriver.Keys.BACKSPACE * 3 + "7")
    assert (
        page.execute_script("return document.querySelector(arguments[0]).getAttribute('aria-invalid')", field) == "true"
    )
    assert text_of(page, "#findings .there output") == ""


def saved(page):
    """The file behind the button."""
    for old in page.downloads.glob("*"):
        old.unlink()
    press(page, "#export", webdriver.Keys.ENTER)  # a click by script may save once, then the browser blocks it
    path = page.downloads / "thresholds.json"
    for _ in range(400):
        if path.exists() and path.read_text().endswith("}\n"):  # the browser makes the file before it fills it
            return json.loads(path.read_text())
        time.sleep(0.05)
    raise AssertionError("nothing was downloaded")


def test_the_saved_file_is_stage_6s_with_a_note(page, run):
    found = saved(page)
    theirs = json.loads((run / "ensemble" / "thresholds.json").read_text())
    note = found.pop("report")
    assert note == {"run": "run", "chosen": {name: {"recall": 0.85, "confidence": 0.95} for name in CLASSES}}
    assert found == theirs | {"recall": {"0.85": theirs["recall"]["0.85"]}}


def test_a_kept_finding_is_saved_as_it_stands(page, run):
    press(page, "#findings input[type=checkbox]", webdriver.Keys.SPACE)
    move(page, "recall", RECALLS.index(0.6))
    move(page, "confidence", 2)
    found = saved(page)
    theirs = json.loads((run / "ensemble" / "thresholds.json").read_text())
    assert (list(found["recall"]), found["confidence"]) == (["0.6"], 0.9)
    assert found["recall"]["0.6"]["Edema"] == theirs["recall"]["0.85"]["Edema"]
    assert found["report"]["chosen"]["Edema"] == {"recall": 0.85, "confidence": 0.95}
    assert found["report"]["chosen"]["Common"] == {"recall": 0.6, "confidence": 0.9}
    at = page_data(run / "report.html")["explorer"]["classes"][2]
    choice = at["choices"][at["chosen"][2][RECALLS.index(0.6)]]
    assert found["recall"]["0.6"]["Common"]["threshold"] == at["thresholds"][choice[0]]
    page.execute_script("document.getElementById('release').click()")
    assert table(page)[0]["Threshold"] != f"{theirs['recall']['0.85']['Edema']['threshold']:.3f}"


def test_predict_takes_the_saved_file_and_flags_by_it(browser, once, tmp_path):
    """On the images of val: the probabilities are the rows that the page's thresholds were chosen from."""
    run = next(once("random_run", random_run).glob("*/run"))
    report.main(["--run-dir", str(run), "--out", str(tmp_path / "report.html")])
    resize(browser, 1360, 900)
    page = opened(browser, tmp_path / "report.html")
    parts = page_data(tmp_path / "report.html")
    assert all("src" in part for part in [*parts["reliability"], parts["alpha"]["picture"]])  # as the scripts name them
    manifest = read_manifest(run)
    paths = list(map(str, manifest.part("val").image_paths()))
    probs = pd.read_csv(run / "ensemble" / "probs_val.csv")[list(manifest.classes)].to_numpy()
    press(page, "#findings input[type=checkbox]", webdriver.Keys.SPACE)  # the first finding stays at 0.85
    seen = []
    for recall, confidence, statuses in ((0.6, 0.0, {"ok"}), (0.7, 0.95, {"ok", "infeasible"})):
        move(page, "recall", RECALLS.index(recall))
        move(page, "confidence", CONFIDENCES.index(confidence))
        points = saved(page)["recall"][f"{recall:g}"]
        assert {point["status"] for point in points.values()} == statuses
        out = tmp_path / f"{recall}.csv"
        flags = ["--run-dir", run, "--thresholds", page.downloads / "thresholds.json", "--out", out, "--workers", 0]
        assert predict.main([*paths, *map(str, flags)]) == 0
        table = pd.read_csv(out)
        assert table["image_id"].tolist() == paths and table["error"].isna().all()
        flagged = table[[f"{name} flagged" for name in manifest.classes]].to_numpy()
        seen.append([points[name]["threshold"] for name in manifest.classes])
        assert (flagged == (probs >= seen[-1])).all()
    theirs = json.loads((run / "ensemble" / "thresholds.json").read_text())["recall"]["0.85"]
    stage_6 = [theirs[name]["threshold"] for name in manifest.classes]
    assert all(cuts[0] == stage_6[0] and ((probs >= cuts) != (probs >= stage_6)).any() for cuts in seen)


def test_numbers_are_rounded_as_python_rounds(page):
    values = [0.0625, 0.1875, 0.5625, 0.9375, 0.0005, 0.1235, 2 / 3, 1.0, 0.0, 12.5, 13.5, 62.5, 0.5, 987.4999]
    for digits in (0, 3):
        shown = page.execute_script("return arguments[0].map((x) => fixed(x, arguments[1]))", values, digits)
        assert shown == [f"{value:.{digits}f}" for value in values]
    assert page.execute_script("return [fixed(NaN), fixed(null)]") == ["n/a", "n/a"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 820, 1360])
def test_nothing_is_cut_off_at_any_width(browser, run, width, scheme):
    resize(browser, width, 800, scheme)
    page = opened(browser, run / "report.html")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    rights = "return [...document.querySelectorAll('nav a')].map((link) => link.getBoundingClientRect().right)"
    assert max(page.execute_script(rights)) <= width
    captions = "return [...document.querySelectorAll('#curves figcaption')].map((one) => one.innerText)"
    assert page.execute_script(captions)[-1].startswith("Never\ninfeasible")  # on a line of its own
    cards = page.execute_script("return getComputedStyle(document.querySelector('#findings tr:last-child')).display")
    assert cards == ("grid" if width < 992 else "table-row")
    ink, paper = page.execute_script(
        "const look = getComputedStyle(document.documentElement); return [look.color, look.backgroundColor]"
    )
    light = [sum(map(int, color[4:-1].split(","))) for color in (ink, paper)]
    assert (light[0] < light[1]) == (scheme == "light")
    look = page.execute_script("return getComputedStyle(document.images[0]).filter")
    assert look.startswith("invert") == (scheme == "dark")  # pictures are drawn on white


def test_print_unfolds_everything_and_leaves_the_controls_out(page):
    page.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert page.execute_script("return document.querySelectorAll('details:not([open])').length") == 0
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    shown = (
        "return ['#recall', '#export', '#recall-value'].map((one) => document.querySelector(one).offsetParent !== null)"
    )
    assert page.execute_script(shown) == [False, False, True]
    column = (
        "return [...document.querySelectorAll('#findings .keep')].map((cell) => cell.offsetParent && cell.innerText)"
    )
    assert not any(page.execute_script(column))  # nothing is kept, so that there is no such column
    page.execute_script("document.querySelector('#findings .keep input').click()")
    assert page.execute_script(column)[:3] == ["Keep", "0.85 at 95%", ""]
    assert base64.b64decode(page.print_page())[:4] == b"%PDF"


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_are_shown_and_never_run(browser, tmp_path):
    mark = "<script>window.ran=1</script> \"é' "
    run = make_run(tmp_path / 'run "x" <b onclick=ran> é\'s', HOSTILE, patients=150, mark=mark)
    report.main(["--run-dir", str(run)])
    resize(browser, 1360, 900)
    page = opened(browser, run / "report.html")
    assert [row["name"] for row in table(page)] == list(HOSTILE)
    assert text_of(page, "#run-name") == run.name and run.name in page.title
    foreign = "document.querySelectorAll('img:not([src^=data])').length"
    ran = f"return [typeof window.ran, document.scripts.length, {foreign}]"
    assert page.execute_script(ran) == ["undefined", 2, 0]
    assert list(saved(page)["recall"]["0.85"]) == list(HOSTILE)
    assert mark not in (run / "report.html").read_text()
