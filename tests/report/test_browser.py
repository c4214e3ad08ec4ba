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
from src.report.explorer import RECALLS
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
def run(tmp_path_factory, drawn):
    """A run with its pictures and its report."""
    run = tmp_path_factory.mktemp("browser") / "run"
    with drawn():
        make_run(run)
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


def move(page, recall):
    """The slider to a target of the page's grid."""
    script = "const d = document.getElementById('recall'); d.value = arguments[0]; d.dispatchEvent(new Event('input'))"
    page.execute_script(script, RECALLS.index(recall))


def press(page, selector, key):
    """One key on the element, as the keyboard sends it."""
    page.execute_script("document.querySelector(arguments[0]).focus()", selector)
    webdriver.ActionChains(page).send_keys(key).perform()


def table(page):
    """Per finding the texts of its cells, by the label a phone shows, without the small line under a figure."""
    return page.execute_script("""
        return [...document.querySelectorAll("#findings tbody tr")].map((row) => Object.fromEntries([
          ["name", row.querySelector("th").firstChild.textContent],
          ["about", row.querySelector("th .muted").textContent],
          ["status", row.querySelector(".status").textContent],
          ...[...row.querySelectorAll("td")].map((cell) => [cell.dataset.label,
            (cell.firstChild && cell.firstChild.textContent) || ""]),
          ...[...row.querySelectorAll("td span.muted")].map((cell) => ["small " + cell.parentNode.dataset.label,
            cell.textContent]),
        ]))""")


@pytest.fixture
def changed(run, tmp_path, capsys):
    """A copy of the run after stage 6 with other flags, with its report, and what stage 6 printed."""

    def make(*flags):
        copied = shutil.copytree(run, tmp_path / "run")
        capsys.readouterr()
        search(copied, *flags)
        out = capsys.readouterr().out
        report.main(["--run-dir", str(copied), "--overwrite"])
        return copied, out

    return make


def printed(out, rule="certified"):
    """Of the one target stage 6 printed: per class the row of its rule and the workload, and the count of verdicts."""
    lines = [[cell.strip() for cell in line.split("|")] for line in out.splitlines()]
    name, rows = "", {}
    for cells in lines:
        name = cells[0] or name
        if len(cells) == 11 and cells[1] == rule:
            rows[name] = cells[2:]
    work = {cells[0]: [cell for cell in cells[1:] if cell] for cells in lines if len(cells) == 10}  # 5 is a second bar
    return rows, work, next(cells[0] for cells in lines if cells[0].startswith(f"{rule}: ")).split(": ")[1]


EVENTS = ("Flagged", "Missed", "Falsely flagged")


def workload(row):
    """The six figures of a row, as stage 6 prints them after the number of units."""
    return [row[f"{event} per 1,000 {view}"] for view in ("labeled", "in all") for event in EVENTS]


def test_it_opens_on_what_stage_6_chose_and_asks_for_nothing_else(page, run):
    assert text_of(page, "h1") == "What does a recall target cost, per finding?"
    assert (text_of(page, "#recall-value"), text_of(page, "#terms")) == ("0.85", "95% confidence, figures of test")
    assert [row["name"] for row in table(page)] == list(CLASSES)
    loaded = page.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert loaded == []
    shown = page.execute_script("return [...document.images].map((one) => [one.naturalWidth, one.alt])")
    assert len(shown) == 12 and all(width > 500 and len(alt) > 50 for width, alt in shown)
    html = (run / "report.html").read_text()
    assert "default-src 'none'" in html and "http://" not in html.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(
    "flags",
    [
        ("0.85",),
        ("0.9", "--family-wise"),
        ("0.85", "--weights", "patient"),
        ("0.9", "--unit", "image"),
        ("0.8", "--missing", "0"),
        ("0.9", "--rule", "empirical"),
    ],
    ids=" ".join,
)
def test_at_a_given_target_the_table_is_what_stage_6_prints_to_the_digit(browser, changed, flags):
    run, out = changed("--recall", *flags)
    resize(browser, 1360, 900)
    page = opened(browser, run / "report.html")
    rows, work, counts = printed(out, "empirical" if "empirical" in flags else "certified")
    shown = table(page)
    assert len(shown) == len(rows) == len(CLASSES)
    unit, units = ("image", "images") if "image" in flags else ("study", "studies")
    for row in shown:
        threshold, val_precision, val_recall, lower, precision, found, verdict, _, status = rows[row["name"]]
        assert (row["Threshold"], row["Precision"], row["Recall"]) == (threshold, precision, found)
        bound = "" if lower == "n/a" else f", at least {lower}"
        assert row["small Recall"] == f"on test; val {val_recall}{bound}"
        assert row["small Precision"] == f"on test; val {val_precision}"
        assert (row["Verdict"], row["status"]) == (verdict, status)
        labeled, *per_labeled, _, flagged, missed, falsely = work[row["name"]]
        assert workload(row) == [*per_labeled, flagged, missed, falsely]
        assert row["about"].endswith(f"; {labeled} labeled in test")
    _, *per_labeled, _, flagged, missed, falsely = work["at least one finding"]
    assert page.execute_script("return [...document.querySelectorAll('#any [data-view]')].map((c) => c.innerText)") == [
        *per_labeled, flagged, missed, falsely,
    ]  # fmt: skip
    assert text_of(page, "#summary").startswith(
        f"On test, at recall {flags[0]}: {counts}. Of 1,000 {units}, each blank"
    )
    whose = "a random study of a random patient" if "patient" in flags else f"the next {unit}"
    assert text_of(page, "#promise").startswith(f"Recall (sensitivity) is that of {whose}")
    assert f"Per 1,000 labeled {units}" in text_of(page, "#findings")
    assert ("images" if unit == "study" else "studies") not in text_of(page, "#findings")


def test_off_the_given_targets_there_is_no_test_figure(page, run):
    """A target that is moved until test looks good breaks the promise."""

    def curve():
        return page.execute_script("return document.querySelector('#curves path.curve').getAttribute('d')")

    def texts():
        return [text_of(page, one) for one in ("#findings", "#summary", "#curves", "#terms")]

    at_given = curve()
    assert "on test" in texts()[0]
    move(page, 0.6)
    assert curve() == at_given  # of val in both cases: a curve of test would show figures of every target
    assert not any("test" in text for text in texts())
    assert text_of(page, "#terms") == "99.5% confidence, figures of val"
    promise = text_of(page, "#promise")
    assert "certified with 99.5% confidence, with which recall reaches all targets" in promise
    assert "95% of the simulated cases" in promise
    assert promise.endswith("Test figures are shown only at what the threshold search was given: 0.85 and 0.9.")
    target = page_data(run / "report.html")["explorer"]["targets"][RECALLS.index(0.6)]
    for row, point, counts in zip(table(page), target["points"], target["work"]["val"][0], strict=False):
        assert row["Verdict"] == "-" and row["small Recall"].startswith("on val")
        recall = "n/a" if point["recall"] is None else f"{point['recall']:.3f}"
        assert (row["Recall"], row["Precision"]) == (recall, f"{point['precision']:.3f}")  # without intervals
        assert workload(row)[:3] == [f"{1000 * events / counts[0]:.0f}" for events in counts[1:]]
    assert page.execute_script("return document.querySelectorAll('#curves line.error').length") == 0
    assert text_of(page, "#summary").startswith("On val, at recall 0.6: feasible 2, infeasible 2.")
    move(page, 0.9)
    assert "on test" in texts()[0] and text_of(page, "#terms") == "95% confidence, figures of test"


def test_a_kept_finding_shows_test_only_at_given_targets(page):
    box = "#findings input[type=checkbox]"

    def split():
        return [row["small Recall"].split(",")[0].split(";")[0] for row in table(page)[::2]]  # of the first and third

    press(page, box, webdriver.Keys.SPACE)  # at 0.85
    move(page, 0.9)
    assert split() == ["on test", "on test"] and "each finding's own target" in text_of(page, "#summary")
    assert set(text_of(page, "#any").split()[-6:]) == {"n/a"}
    move(page, 0.6)
    assert split() == ["on val", "on val"]
    press(page, box, webdriver.Keys.SPACE)
    press(page, box, webdriver.Keys.SPACE)  # now at 0.6
    move(page, 0.85)
    assert split() == ["on val", "on test"]
    words = "contradicted 0, confirmed 0, consistent 1, feasible 1, infeasible 2."
    assert text_of(page, "#summary") == f"On test, at each finding's own target: {words}"


def test_the_empirical_rule_promises_nothing_at_any_target(browser, changed):
    run, _ = changed("--recall", "0.85", "--rule", "empirical")
    page = opened(browser, run / "report.html")
    for recall, split in ((0.85, "test"), (0.6, "val")):
        move(page, recall)
        assert text_of(page, "#terms") == f"empirical rule, figures of {split}"
        assert "recall on val reaches the target, and nothing is promised for new patients" in text_of(page, "#promise")
        assert "at least" not in "".join(row["small Recall"] for row in table(page))
    found = saved(page)
    assert (found["rule"], found["confidence"]) == ("empirical", None)
    assert found["report"]["chosen"]["Edema"] == {"recall": 0.6, "confidence": None}


def test_the_slider_moves_the_table_the_point_and_the_words(page):
    def point():
        return page.execute_script("return document.querySelector('#curves path.point').getAttribute('d')")

    move(page, 0.8)
    before, place, words = table(page), point(), text_of(page, "#summary")
    move(page, 0.6)
    after = table(page)
    assert text_of(page, "#recall-value") == "0.6"
    assert float(after[0]["Threshold"]) > float(before[0]["Threshold"])
    assert int(after[0]["Missed per 1,000 labeled"]) > int(before[0]["Missed per 1,000 labeled"])
    assert point() != place and text_of(page, "#summary") != words
    page.execute_script("[...document.querySelectorAll('#presets button')].at(-1).click()")
    assert text_of(page, "#recall-value") == "0.9"
    assert page.execute_script("return document.getElementById('recall').value") == str(RECALLS.index(0.9))


def test_a_finding_with_too_few_patients_is_infeasible_and_says_how_many_are_missing(page):
    rare = table(page)[CLASSES.index("Rare")]
    assert rare["status"].startswith("infeasible, flags all: ") and rare["Threshold"] == "0.000"
    marks = page.execute_script("""
        return [...document.querySelectorAll("#curves figure")].map((panel) =>
          [...panel.querySelectorAll(".point")].map((mark) => mark.tagName))""")
    assert dict(zip(CLASSES, marks, strict=True)) == {
        "Edema": ["path"],
        "Rare": ["circle"],
        "Common": ["path"],
        "Never": [],
    }


def test_the_keyboard_alone_moves_keeps_and_saves(page):
    keys = webdriver.Keys
    press(page, "#recall", keys.ARROW_RIGHT)
    assert text_of(page, "#recall-value") == "0.86"
    assert page.execute_script("return document.getElementById('recall').getAttribute('aria-valuetext')") == "0.86"
    time.sleep(0.7)
    assert text_of(page, "#live") == text_of(page, "#summary")  # what a screen reader hears
    press(page, "#findings input[type=checkbox]", keys.SPACE)
    assert text_of(page, "#findings tr.kept .keep .muted") == "0.86 at 99.5%"
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
    move(page, 0.6)
    page.get("about:blank")
    page.back()
    shown = (
        "return [document.getElementById('recall').value, document.querySelector('.keep input').checked,"
        " document.querySelectorAll('tr.kept').length, document.getElementById('recall-value').textContent]"
    )
    value, ticked, kept, text = page.execute_script(shown)
    assert RECALLS[int(value)] == float(text) and ticked == bool(kept)


def test_precision_at_another_prevalence_is_stage_6s(browser, changed):
    run, out = changed("--recall", "0.85", "--prevalence", "Edema=0.05")
    last = [line for line in out.splitlines() if line.startswith("Edema")][-1].split("|")
    resize(browser, 1360, 900)
    page = opened(browser, run / "report.html")
    field = "#findings input[type=number]"
    assert page.execute_script("return document.querySelector(arguments[0]).placeholder", field) == last[3].strip()
    press(page, field, "0.05")
    assert text_of(page, "#findings .there output") == last[-1].split("[")[0].strip()
    move(page, 0.6)
    target = page_data(run / "report.html")["explorer"]["targets"][RECALLS.index(0.6)]
    units, _, _, falsely = target["work"]["val"][0][0]
    hits, misses = 0.05 * target["points"][0]["recall"], 0.95 * falsely / (units - target["points"][0]["positives"])
    assert text_of(page, "#findings .there output") == f"{hits / (hits + misses):.3f}"
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


@pytest.mark.parametrize("flags", [(), ("--weights", "patient", "--aggregate", "mean", "--family-wise")], ids=len)
def test_the_saved_file_is_stage_6s_with_a_note(browser, changed, flags):
    run, _ = changed("--recall", "0.85", "0.9", *flags)
    found = saved(opened(browser, run / "report.html"))
    theirs = json.loads((run / "ensemble" / "thresholds.json").read_text())
    note = found.pop("report")
    assert note == {"run": "run", "chosen": {name: {"recall": 0.85, "confidence": 0.95} for name in CLASSES}}
    assert found == theirs | {"recall": {"0.85": theirs["recall"]["0.85"]}}
    assert (found["unit"], found["weights"]) == ("study", "patient" if flags else "study")


def test_a_kept_finding_is_saved_as_it_stands(page, run):
    move(page, 0.9)
    press(page, "#findings input[type=checkbox]", webdriver.Keys.SPACE)
    move(page, 0.6)
    found = saved(page)
    theirs = json.loads((run / "ensemble" / "thresholds.json").read_text())
    assert (list(found["recall"]), found["confidence"]) == (["0.6"], 0.95)  # the lowest of both
    assert found["recall"]["0.6"]["Edema"] == theirs["recall"]["0.9"]["Edema"]
    assert found["report"]["chosen"]["Edema"] == {"recall": 0.9, "confidence": 0.95}
    assert found["report"]["chosen"]["Common"] == {"recall": 0.6, "confidence": 0.995}
    target = page_data(run / "report.html")["explorer"]["targets"][RECALLS.index(0.6)]
    assert found["recall"]["0.6"]["Common"] == target["points"][CLASSES.index("Common")]
    page.execute_script("document.getElementById('release').click()")
    assert table(page)[0]["Threshold"] == f"{target['points'][0]['threshold']:.3f}"
    assert saved(page)["confidence"] == 0.995


def test_predict_takes_the_saved_file_and_flags_by_it(browser, once, tmp_path):
    """At a target of stage 6 it predicts what stage 6's own file does, and at another target something else."""
    run = next(once("random_run", random_run).glob("*/run"))
    report.main(["--run-dir", str(run), "--out", str(tmp_path / "report.html")])
    resize(browser, 1360, 900)
    page = opened(browser, tmp_path / "report.html")
    parts = page_data(tmp_path / "report.html")
    assert all("src" in part for part in [*parts["reliability"], parts["alpha"]["picture"]])  # as the scripts name them
    recorded = json.loads((run / "ensemble" / "thresholds.json").read_text())
    paths = list(map(str, read_manifest(run).part("val").image_paths()))

    def predicted(name, *flags):
        out = tmp_path / f"{name}.csv"
        assert predict.main([*paths, *map(str, ("--run-dir", run, "--out", out, "--workers", 0, *flags))]) == 0
        return pd.read_csv(out)

    tables = {"given": predicted("given", "--recall", 0.9)}
    for recall in (0.9, 0.6):
        move(page, recall)
        kept = saved(page)
        for key in ("rule", "confidence", "unit", "aggregate", "weights", "chosen_on", "manifest_sha256"):
            assert kept[key] == recorded[key]
        tables[recall] = predicted(recall, "--thresholds", page.downloads / "thresholds.json")
    pd.testing.assert_frame_equal(tables["given"], tables[0.9])
    assert tables["given"]["error"].isna().all() and not tables["given"].equals(tables[0.6])


def test_numbers_are_rounded_as_python_rounds(page):
    values = [0.0625, 0.1875, 0.5625, 0.9375, 0.0005, 0.1235, 2 / 3, 1.0, 0.0, 12.5, 13.5, 62.5, 0.5, 987.4999]
    for digits in (0, 3):
        shown = page.execute_script("return arguments[0].map((x) => fixed(x, arguments[1]))", values, digits)
        assert shown == [f"{value:.{digits}f}" for value in values]
    assert page.execute_script("return [fixed(NaN), fixed(null)]") == ["n/a", "n/a"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 820, 1240, 1280, 1360])
def test_nothing_is_cut_off_at_any_width(browser, run, width, scheme):
    resize(browser, width, 800, scheme)
    page = opened(browser, run / "report.html")
    press(page, "#findings input[type=checkbox]", webdriver.Keys.SPACE)
    press(page, "#findings input[type=number]", "0.05")
    for recall in (0.6, 0.85):
        move(page, recall)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        table, frame = page.execute_script(
            "const one = document.getElementById('findings'); return [one.scrollWidth, one.parentElement.clientWidth]"
        )
        assert table <= frame
    rights = "return [...document.querySelectorAll('nav a')].map((link) => link.getBoundingClientRect().right)"
    assert max(page.execute_script(rights)) <= width
    captions = "return [...document.querySelectorAll('#curves figcaption')].map((one) => one.innerText)"
    assert page.execute_script(captions)[-1].startswith("Never\non test; infeasible")  # on a line of its own
    cards = page.execute_script("return getComputedStyle(document.querySelector('#findings tr:last-child')).display")
    assert cards == ("grid" if width <= 1248 else "table-row")
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
    assert not any(page.execute_script(column))  # nothing is kept, so the column does not exist
    page.execute_script("document.querySelector('#findings .keep input').click()")
    assert page.execute_script(column)[:3] == ["Keep", "0.85 at 95%", ""]
    assert base64.b64decode(page.print_page())[:4] == b"%PDF"


def test_subgroups_are_folded_and_in_the_order_of_the_audit(browser, changed):
    run, _ = changed("--recall", "0.85", "--subgroups", "sex", "age")
    resize(browser, 1360, 900)
    page = opened(browser, run / "report.html")
    assert "subgroups_recall_0.85.png is missing; ensemble_threshold_search.py draws it" in text_of(page, "#subgroups")
    cells = (
        "return [...document.querySelectorAll('#subgroups tbody tr')].map((row) =>"
        " [...row.children].map((cell) => cell.textContent))"
    )
    shown = page.execute_script(cells)
    theirs = pd.read_csv(run / "ensemble" / "subgroups_recall_0.85.csv")
    assert [row[:2] for row in shown] == [[a, f"{b} {c}"] for a, b, c in theirs[["class", "by", "group"]].to_numpy()]
    edema = theirs.iloc[0]
    assert shown[0][2:5] == [
        f"{edema['positives']}", f"{edema['missed']}",
        f"{edema['recall']:.3f} [{edema['low']:.3f}, {edema['high']:.3f}]",
    ]  # fmt: skip
    assert shown[0][5].startswith(f"cannot be stated: {edema['needed']} more positive patient")
    assert page.execute_script("return document.querySelector('#subgroups details').open") is False
    assert page.execute_script("return document.getElementById('readers')") is None


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_are_shown_and_never_run(browser, tmp_path, drawn):
    mark, run = "<script>window.ran=1</script> \"é' ", tmp_path / 'run "x" <b onclick=ran> é\'s'
    with drawn():
        make_run(run, HOSTILE, patients=150, mark=mark)
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


def test_metrics_are_shown_in_every_view_of_the_labels_that_a_split_has(browser, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run") / "resnet50"
    test = json.loads((folder / "metrics_test.json").read_text())
    del test["no_finding_as_negative"]  # as of a split whose labels have no blank
    (folder / "metrics_test.json").write_text(json.dumps(test))
    report.main(["--run-dir", str(folder.parent), "--overwrite"])
    page = opened(browser, folder.parent / "report.html")
    table = "[...document.querySelector('#metrics table').rows]"
    head, *rows = page.execute_script(f"return {table}.map((row) => [...row.cells].map((cell) => cell.textContent))")
    assert head[5::2] == ["AUROC, blanks of “No Finding” negative", "AUROC, blanks negative"]
    rows = {name: values for name, *values in rows}
    assert rows["resnet50 (test)"][4:7] == ["", "", f"{test['blank_as_negative']['macro']['auroc']:.3f}"]
    val = json.loads((folder / "metrics_val.json").read_text())["no_finding_as_negative"]["macro"]
    assert rows["resnet50 (val)"][4:6] == [f"{val['auroc']:.3f}", f"{val['auprc']:.3f}"]
