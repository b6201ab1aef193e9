"""The report's page in a real browser: it is used by keyboard, on a phone's width, and fetches nothing."""

from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from stages.evaluation.palette import colour_of_class
from tests.support.browser import requested
from tests.support.report_inputs import LABELS, build, run

HOSTILE_NAMES = ('<b>di"rt</b>', "dam'age & </script><script>document.title='broken'</script>")
HOSTILE_STEM = "p\"'><i onclick=1>&amp;"


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """The page of a data set with truth and hostile names, of one whose test images have no truth, and of
    twelve runs."""
    made = {}
    for name, settings in {
        "truth": {"names": HOSTILE_NAMES, "stem": HOSTILE_STEM, "images": 5},
        "no truth": {"test_truth": False},
        "many runs": {
            "runs": ("full", *(f"another_published_method_{number}" for number in range(2, 13))),
            "near": [(9, "val", "images/val/p0.png", "test", "images/test/p1.png")],
        },
    }.items():
        root = tmp_path_factory.mktemp("report")
        build(root, **settings)
        run(root)
        made[name] = root / "report/index.html"
    return made


@pytest.fixture
def page(browser, pages):
    resize(browser, 1280)
    browser.get(pages["truth"].as_uri())
    return browser


def resize(browser, width: int, scheme: str = "light") -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def figures(page) -> list:
    return [figure for figure in page.find_elements(By.CSS_SELECTOR, ".picture") if figure.is_displayed()]


def with_truth(page) -> list:
    return [figure for figure in figures(page) if figure.get_attribute("data-split") == "test"]


def opacities(figure) -> list[float]:
    """Of teacher, student and truth in the whole view."""
    layers = (figure.find_elements(By.CSS_SELECTOR, f".whole .{name}") for name in ("teacher", "student", "truth"))
    return [float(layer[0].value_of_css_property("opacity")) for layer in layers if layer]


def test_the_page_opens_from_the_file_system_and_asks_for_nothing_else(browser, pages):
    requested(browser)
    browser.get_log("browser")
    for path in pages.values():
        browser.get(path.as_uri())
        for slider in browser.find_elements(By.CSS_SELECTOR, ".stop"):
            slider.send_keys(Keys.HOME)
        urls = requested(browser)
        assert path.as_uri() in urls
        assert [url for url in urls if url != path.as_uri() and not url.startswith("data:")] == []
        assert browser.get_log("browser") == []
        broken = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).length"
        assert browser.execute_script(broken) == 0


def test_its_policy_lets_nothing_in_from_outside(page):
    script = """
        const done = arguments[0], seen = [];
        document.addEventListener("securitypolicyviolation", (event) => {
            seen.push(event.effectiveDirective);
            if (seen.length === 3) done(seen.sort());
        });
        document.body.append(Object.assign(new Image(), { src: "http://127.0.0.1:9/a.png" }));
        document.body.append(Object.assign(document.createElement("script"), { textContent: "document.title = 1" }));
        fetch("http://127.0.0.1:9/").catch(() => {});
    """
    assert page.execute_async_script(script) == ["connect-src", "img-src", "script-src-elem"]
    page.get_log("browser")
    assert page.title == "Report: full"


def test_names_from_the_data_set_are_shown_and_never_obeyed(page):
    assert page.find_elements(By.CSS_SELECTOR, "main b, main i") == []
    title = figures(page)[0].find_element(By.TAG_NAME, "h3").text
    assert title == f"test/{HOSTILE_STEM}4"
    options = [option.text for option in Select(page.find_element(By.ID, "class")).options]
    assert options == ["any", *HOSTILE_NAMES]
    assert page.title == "Report: full"


def test_the_slider_goes_from_image_to_teacher_student_and_truth_by_keyboard(page):
    figure, other = with_truth(page)[:2]
    slider = figure.find_element(By.CSS_SELECTOR, ".stop")
    assert slider.get_attribute("aria-valuetext") == "student"
    assert opacities(figure) == [0, 1, 0]
    slider.send_keys(Keys.HOME)
    seen = [(slider.get_attribute("aria-valuetext"), opacities(figure))]
    for _ in range(4):
        slider.send_keys(Keys.ARROW_RIGHT)
        seen.append((slider.get_attribute("aria-valuetext"), opacities(figure)))
    assert seen == [
        ("image", [0, 0, 0]),
        ("teacher", [1, 0, 0]),
        ("student", [0, 1, 0]),
        ("truth", [0, 0, 1]),
        ("truth", [0, 0, 1]),
    ]
    assert opacities(other) == [0, 1, 0]


def test_one_slider_moves_all_and_masks_fade_with_their_strength(page):
    page.find_element(By.ID, "all").send_keys(Keys.ARROW_LEFT)
    assert {tuple(opacities(figure)) for figure in with_truth(page)} == {(1, 0, 0)}
    strength = page.find_element(By.ID, "strength")
    strength.send_keys(Keys.HOME)
    assert opacities(figures(page)[0])[0] == pytest.approx(0.1)


def test_without_truth_the_slider_ends_at_the_student_and_the_page_says_so(browser, pages):
    resize(browser, 1280)
    browser.get(pages["no truth"].as_uri())
    figure = next(figure for figure in figures(browser) if figure.get_attribute("data-split") == "test")
    slider = figure.find_element(By.CSS_SELECTOR, ".stop")
    slider.send_keys(Keys.END)
    assert slider.get_attribute("aria-valuetext") == "student"
    assert "(no truth)" in figure.text
    assert "none of the 3 test images has pixel truth" in browser.find_element(By.ID, "not-scored").text
    assert "no test image has pixel truth" in browser.find_element(By.ID, "defects").text


PAINTED = """
    const canvas = arguments[0].querySelector(".whole canvas"), done = arguments[1];
    const read = () => canvas.shares ? canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height) : null;
    setTimeout(() => { const own = read(); done(own && [own.width, own.height, [...own.data]]); }, 400);
"""


def test_the_threshold_draws_the_masks_that_the_decision_gives(page):
    """The student is sure to 0.65 of its first class, to 0.9 of the second, which lies in the lower half."""
    figure = with_truth(page)[0]
    image, canvas = (figure.find_element(By.CSS_SELECTOR, f".whole {name}") for name in ("img.student", "canvas"))
    said, gives = (page.find_element(By.ID, name) for name in ("threshold-said", "threshold-gives"))
    assert (said.text, gives.text, canvas.is_displayed(), image.is_displayed()) == ("argmax", "", False, True)
    predicted = LABELS.copy()
    predicted[:20] = 0  # that of the last image, which is the first shown: the worst
    slider = page.find_element(By.ID, "threshold")

    def painted() -> np.ndarray:
        width, height, data = page.execute_async_script(PAINTED, figure)
        pixels = np.array(data).reshape(height, width, 4)
        found = np.zeros((height, width), np.uint8)
        for class_id in range(2):
            # a canvas holds colours times their opacity: they come back rounded
            close = np.abs(pixels[..., :3] - np.array(colour_of_class(class_id))) <= 3
            found[(pixels[..., 3] > 0) & close.all(-1)] = class_id + 1
        return found

    slider.send_keys(Keys.ARROW_RIGHT)
    assert said.text == "0.55"
    assert (canvas.is_displayed(), image.is_displayed()) == (True, False)
    np.testing.assert_array_equal(painted(), predicted)
    assert "at 0.55: recall 0.8, precision 1, 0 false positives per image" in gives.text
    slider.send_keys(Keys.END)
    assert said.text == "0.98"
    assert not painted().any()
    page.find_element(By.ID, "chosen").click()
    assert said.text == "several"
    np.testing.assert_array_equal(painted(), predicted)
    page.find_element(By.ID, "argmax").click()
    assert (said.text, gives.text, canvas.is_displayed(), image.is_displayed()) == ("argmax", "", False, True)


def test_pictures_are_ordered_by_error_or_as_asked(page):
    def errors() -> list[float]:
        return [float(figure.get_attribute("data-error")) for figure in figures(page)]

    assert len(set(errors())) > 1
    assert errors() == sorted(errors(), reverse=True)
    order = Select(page.find_element(By.ID, "sort"))
    order.select_by_visible_text("error, best first")
    assert errors() == sorted(errors())
    order.select_by_visible_text("name")
    titles = [figure.get_attribute("data-title") for figure in figures(page)]
    assert titles == sorted(titles)
    order.select_by_visible_text("most false negative pixels")
    wrong = [int(figure.get_attribute("data-false-negatives")) for figure in figures(page)]
    assert wrong == sorted(wrong, reverse=True)


def test_pictures_are_filtered_by_split_and_class(page):
    everything = len(figures(page))
    Select(page.find_element(By.ID, "split")).select_by_visible_text("val")
    assert {figure.get_attribute("data-split") for figure in figures(page)} == {"val"}
    assert page.find_element(By.ID, "count").text == f"{len(figures(page))} of {everything} shown"
    Select(page.find_element(By.ID, "split")).select_by_visible_text("all")
    Select(page.find_element(By.ID, "class")).select_by_visible_text(HOSTILE_NAMES[1])
    assert len(figures(page)) == everything


def test_a_key_brings_the_worst_spot_closer_and_back(page):
    figure = figures(page)[0]
    button = figure.find_element(By.CSS_SELECTOR, "button")
    for pressed in ("true", "false"):
        button.send_keys(Keys.ENTER)
        assert button.get_attribute("aria-pressed") == pressed
        assert figure.find_element(By.CSS_SELECTOR, ".close").is_displayed() == (pressed == "true")
        assert figure.find_element(By.CSS_SELECTOR, ".whole").is_displayed() == (pressed == "false")


def test_the_tab_key_reaches_every_control_and_shows_where_it_is(page):
    state = """
        const at = document.activeElement;
        return [at.id || at.className || at.tagName, getComputedStyle(at).outlineStyle];
    """
    reached = []
    while len(reached) < 80:
        page.switch_to.active_element.send_keys(Keys.TAB)
        name, outline = page.execute_script(state)
        if name in ("BODY", "skip") and reached:
            break
        assert outline == "solid", name
        reached.append(name)
    assert reached[0] == "skip"
    assert {"sort", "split", "class", "all", "strength", "boxes", "scroll", "SUMMARY"} <= set(reached)
    assert reached.count("scroll") == len(page.find_elements(By.CLASS_NAME, "scroll"))
    assert reached.count("SUMMARY") == 3
    assert reached.count("stop") == reached.count("closer") == len(figures(page))


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("name", ["truth", "no truth", "many runs"])
def test_the_page_never_scrolls_sideways(browser, pages, width, name):
    resize(browser, width)
    browser.get(pages[name].as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    shown, wide = browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert shown == width
    assert wide <= width


def test_on_a_phone_the_tables_of_twelve_runs_scroll_by_keyboard_under_the_names_of_the_runs(browser, pages):
    resize(browser, 390)
    browser.get(pages["many runs"].as_uri())
    for section in ("test", "differences", "corrections", "defects"):
        box = browser.find_element(By.CSS_SELECTOR, f"#{section} .scroll")
        names = box.find_elements(By.CSS_SELECTOR, "tbody th[scope=row]")
        shown = [name.text for name in names if name.text.startswith("another")]
        assert len(set(shown)) == 11
        before = names[-1].rect
        box.send_keys(*[Keys.ARROW_RIGHT] * 3)
        assert browser.execute_async_script(
            "const [box, done] = arguments; setTimeout(() => done(box.scrollLeft), 300);", box
        )
        assert names[-1].rect["x"] == pytest.approx(before["x"], abs=1)
        # what is left for the figures beside the name
        assert before["x"] + before["width"] <= 0.5 * 390
        caption = box.find_element(By.CSS_SELECTOR, "caption span").rect
        assert caption["x"] >= 0 and caption["x"] + caption["width"] <= 390


def test_twelve_runs_are_told_apart_by_colour_or_dashes_and_the_key_shows_both(browser, pages):
    resize(browser, 390)
    browser.get(pages["many runs"].as_uri())
    drawn = [path.get_attribute("class") for path in browser.find_elements(By.CSS_SELECTOR, "#curves .key path")]
    curves = browser.find_elements(By.CSS_SELECTOR, "#curves figure:first-child path")
    assert len(set(drawn)) == 12
    assert [path.get_attribute("class") for path in curves] == drawn


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser, pages, scheme):
    resize(browser, 1280, scheme)
    browser.get(pages["truth"].as_uri())

    def luminance(selector: str, key: str) -> float:
        colour = browser.find_element(By.CSS_SELECTOR, selector).value_of_css_property(key)
        levels = [int(part) / 255 for part in colour[colour.index("(") + 1 :].rstrip(")").split(",")[:3]]
        linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper = luminance("body", "background-color")
    assert (paper < 0.1) == (scheme == "dark")
    for selector in ("body", "small", "nav a", "#published td", "thead th"):
        ink = luminance(selector, "color")
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, selector
