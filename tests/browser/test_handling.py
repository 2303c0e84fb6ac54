"""The page's one script: slider, flicker and sorting work from the keyboard, and nothing else can run."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import opened


def press(page: Page, *keys: str) -> None:
    """Keys one after another."""
    for key in keys:
        page.keyboard.press(key)


def test_the_slider_moves_pictures_numbers_and_the_line_over_the_energies(browser: Browser, page: Path) -> None:
    with opened(browser, page, 1440) as found:
        slider, output = found.page.get_by_role("slider", name="Step"), found.page.locator("output")
        expect(slider).to_have_attribute("aria-valuetext", "step 10, noise level 1.77")
        before = [
            found.page.locator(".cursor").get_attribute("x1"),
            found.page.locator(".viewer td").first.inner_text(),
        ]
        slider.focus()
        press(found.page, "ArrowRight")
        expect(output).to_have_text("step 20, noise level 0.631")
        after = [found.page.locator(".cursor").get_attribute("x1"), found.page.locator(".viewer td").first.inner_text()]
        assert float(str(after[0])) > float(str(before[0]))
        assert after[1] != before[1]
        for end, step in (("Home", 0), ("End", 4)):
            press(found.page, end)
            shown = [image.get_attribute("src") for image in found.page.locator(".viewer img").all()]
            rows = found.page.locator(".steps tbody tr").all()
            assert shown == [row.locator("img").nth(step).get_attribute("src") for row in rows]
        assert (
            found.page.locator(".viewer img").first.get_attribute("alt")
            == "base model at step 30: a small black circle"
        )
        assert found.problems == []


def test_the_line_stands_at_the_step(browser: Browser, page: Path) -> None:
    with opened(browser, page, 1440) as found:
        found.page.get_by_role("slider", name="Step").focus()
        press(found.page, "End")
        line = found.page.locator(".cursor").bounding_box()
        tick = found.page.locator("#steps svg text", has_text="30").bounding_box()
        assert line
        assert tick
        assert abs(line["x"] - (tick["x"] + tick["width"] / 2)) < 3


def test_two_pictures_are_compared_from_the_keyboard(browser: Browser, page: Path) -> None:
    with opened(browser, page, 1440) as found:
        caption, view = found.page.locator(".ab figcaption").first, found.page.locator(".ab img").first
        strip = found.page.locator(".strip").first.locator("figure:not(.ab) img")
        expect(caption).to_have_text("A: base model")
        found.page.get_by_role("button", name="Show B").focus()
        press(found.page, "Enter")
        expect(caption).to_have_text("B: DoRA")
        expect(found.page.get_by_role("button", name="Show B")).to_have_attribute("aria-pressed", "true")
        assert view.get_attribute("src") == strip.last.get_attribute("src")
        assert view.get_attribute("alt") == "DoRA: a small black circle"
        found.page.get_by_label("B", exact=True).focus()
        press(found.page, "ArrowUp")
        expect(caption).to_have_text("B: FeRA with prior")
        assert found.problems == []


def test_flicker_starts_and_stops_by_one_key(browser: Browser, page: Path) -> None:
    with opened(browser, page) as found:
        caption, flicker = found.page.locator(".ab figcaption").first, found.page.get_by_role("button", name="Flicker")
        flicker.focus()
        press(found.page, "Space")
        expect(caption).to_have_text("B: DoRA", timeout=3000)
        expect(caption).to_have_text("A: base model", timeout=3000)
        press(found.page, "Space")
        expect(flicker).to_have_attribute("aria-pressed", "false")
        still = caption.inner_text()
        found.page.wait_for_timeout(900)
        assert caption.inner_text() == still


def test_who_wants_less_motion_gets_no_flicker_but_may_change_by_hand(browser: Browser, page: Path) -> None:
    with opened(browser, page, reduced_motion="reduce") as found:
        assert found.page.get_by_role("button", name="Flicker").count() == 0
        found.page.get_by_role("button", name="Show B").click()
        expect(found.page.locator(".ab figcaption").first).to_have_text("B: DoRA")
    with opened(browser, page) as found:
        found.page.get_by_role("button", name="Flicker").click()
        found.page.emulate_media(reduced_motion="reduce")
        expect(found.page.locator("[aria-pressed=true]:visible")).to_have_count(0, timeout=2000)


def test_tables_are_sorted_by_the_numbers_in_them(browser: Browser, page: Path) -> None:
    with opened(browser, page) as found:
        table = found.page.locator("#verdict table").first
        names = table.locator("tbody th")
        head = table.locator("thead th").nth(2)
        head.get_by_role("button").focus()
        press(found.page, "Enter")
        assert names.all_inner_texts() == ["FeRA with prior", "DoRA", "LoRA"]  # −4.7 %, × 4.2, and no number last
        expect(head).to_have_attribute("aria-sort", "ascending")
        press(found.page, "Enter")
        assert names.all_inner_texts() == ["DoRA", "FeRA with prior", "LoRA"]
        expect(head).to_have_attribute("aria-sort", "descending")
        table.locator("thead th").nth(1).get_by_role("button").click()
        assert names.all_inner_texts() == ["FeRA with prior", "LoRA", "DoRA"]  # 0.24, 0.25, 1 200
        assert table.locator("[aria-sort]").count() == 1


def test_the_skip_link_is_the_first_stop_and_leads_to_the_report(browser: Browser, page: Path) -> None:
    with opened(browser, page) as found:
        press(found.page, "Tab")
        link = found.page.locator(".skip")
        expect(link).to_be_focused()
        box = link.bounding_box()
        assert box
        assert box["x"] >= 0
        press(found.page, "Enter")
        expect(found.page.locator("main")).to_be_focused()


def test_every_control_shows_that_it_has_the_focus(browser: Browser, page: Path) -> None:
    with opened(browser, page) as found:
        seen = set()
        for _ in range(60):
            press(found.page, "Tab")
            seen.add(tuple(found.page.evaluate(
                "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
            )))  # fmt: skip
        assert {tag for tag, _ in seen} >= {"A", "BUTTON", "DIV", "INPUT", "SELECT"}
        assert {style for tag, style in seen if tag != "BODY"} <= {"solid", "auto"}


def test_no_other_script_can_run(browser: Browser, page: Path) -> None:
    with opened(browser, page) as found:
        found.page.evaluate("""() => {
            const script = document.createElement('script');
            script.textContent = 'window.hit = true';
            document.body.append(script);
            document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.hit = true">');
        }""")
        found.page.wait_for_timeout(200)
        assert found.page.evaluate("window.hit") is None
        assert any("Content Security Policy" in problem for problem in found.problems)
