"""The page in a real browser: every message is seen where it went, and what a reader does is answered."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.playground.conftest import LIMIT, Playground
from tests.support.process import wait_until

pytestmark = pytest.mark.xdist_group("playground")


def start(tab: Any, playground: Playground, example: str) -> None:
    tab.goto(f"{playground.url}/?example={example}")
    tab.wait_for_selector("body[data-connected=yes]")


def play(tab: Any, until: int) -> None:
    """Play up to a step, its number from 1, and wait until it has been played."""
    tab.evaluate(f"document.querySelector('#step-{until - 1} button').click()")
    tab.wait_for_selector(f"body[data-next='{until}'][data-playing=false]")


def dots(tab: Any) -> dict[str, int]:
    """The dots that have arrived, by the kind of the edge."""
    found = tab.evaluate("({...document.getElementById('stage').dataset})")
    return {name: int(value) for name, value in found.items() if name != "replayed" and value != "0"}


def arrived(tab: Any, **wanted: int) -> None:
    """Wait until exactly these dots have arrived."""
    wait_until(lambda: all(dots(tab).get(name, 0) >= number for name, number in wanted.items()), LIMIT)
    assert dots(tab) == wanted


def output(tab: Any, title: str) -> str:
    """What a terminal shows."""
    return str(tab.inner_text(f"article[data-terminal='{title}'] pre"))


def test_a_work_queue_from_start_to_end_with_a_killed_worker(tab: Any, playground: Playground) -> None:
    start(tab, playground, "work_queue")
    # Two workers, a film, three letters: each message is a dot to the exchange, to the queue, and to a worker.
    play(tab, 4)
    arrived(tab, published=4, routed=4, delivered=4)
    assert tab.get_attribute("[data-edge='s:new_task.py|x:']", "data-count") == "4"
    assert tab.get_attribute("[data-edge='x:|q:work_queue.tasks']", "data-count") == "4"
    first = tab.get_attribute("[data-edge='q:work_queue.tasks|k:t:1']", "data-count")
    second = tab.get_attribute("[data-edge='q:work_queue.tasks|k:t:2']", "data-count")
    assert (first, second) == ("1", "3")
    # The README's own experiment: a worker is killed in mid-task, and the other one gets the task again.
    play(tab, 14)
    arrived(tab, published=6, routed=6, delivered=7, redelivered=1)
    assert "(ended by SIGQUIT)" in output(tab, "worker-1")
    assert output(tab, "worker-2").count("Done with 'Film...'") == 1
    tab.click("#play")
    tab.wait_for_selector("body[data-next='27'][data-playing=false]")
    assert "“Restart the broker” is left out" in tab.inner_text("#remark")
    arrived(tab, published=12, routed=12, delivered=13, redelivered=1)
    assert "12 published, 13 delivered, 1 of them again" in tab.inner_text("#totals")
    assert tab.locator(".step.done").count() == 23


def test_one_message_fans_out_a_second_browser_joins_and_a_reload_keeps_all(
    tab: Any, browser: Any, playground: Playground
) -> None:
    start(tab, playground, "publish_subscribe")
    # Nobody listens yet: the message is lost at the exchange.
    play(tab, 1)
    arrived(tab, published=1, lost=1)
    play(tab, 4)
    arrived(tab, published=2, lost=1, routed=2, delivered=2)
    boxes = "() => [...document.querySelectorAll('.node.consumer')].length"
    wait_until(lambda: tab.evaluate(boxes) == 2)
    # Somebody joins late, by the same link, sees where things are, and what happens from now on.
    late = browser.new_context().new_page()
    late.goto(tab.url)
    late.wait_for_selector("body[data-connected=yes][data-next='4']")
    assert "the shop is open" in output(late, "screen")
    assert late.locator("#log tr").count() == tab.locator("#log tr").count()
    late.click("#step")
    tab.wait_for_selector("body[data-next='5'][data-playing=false]")
    play(late, 8)
    wait_until(lambda: dots(late).get("published") == 1 and dots(late).get("routed") == 3, LIMIT)
    late.context.close()
    session = parse_qs(urlsplit(tab.url).query)["session"]
    arrived(tab, published=3, lost=1, routed=5, delivered=4)
    tab.reload()
    tab.wait_for_selector("body[data-connected=yes][data-next='8']")
    assert parse_qs(urlsplit(tab.url).query)["session"] == session
    assert "it is raining in" in output(tab, "late")
    assert "the shop is open" in output(tab, "screen")
    assert tab.locator(".node.queue").count() >= 4


def test_a_link_to_a_session_that_has_ended_plays_up_to_its_step(tab: Any, playground: Playground) -> None:
    tab.goto(f"{playground.url}/?example=work_queue&session=gone&step=2")
    tab.wait_for_selector("body[data-connected=yes][data-next='2'][data-playing=false]")
    assert "Waiting for tasks" in output(tab, "worker-2")
    assert "session=gone" not in tab.url


def test_terminals_are_stopped_killed_started_again_and_multiplied(tab: Any, playground: Playground) -> None:
    start(tab, playground, "work_queue")
    play(tab, 1)
    worker = "article[data-terminal='worker-1']"
    tab.click(f"{worker} [data-do=another]")
    tab.wait_for_selector("article[data-terminal='worker-2'][data-state=running]")
    wait_until(lambda: "Waiting for tasks" in output(tab, "worker-2"))
    wait_until(lambda: tab.locator(".node.consumer").count() == 2)
    tab.click("article[data-terminal='worker-2'] [data-do=interrupt]")
    tab.wait_for_selector("article[data-terminal='worker-2'][data-state=ended][data-code='0']")
    # By the menu, too.
    tab.click("#tab-break")
    tab.select_option("form[data-do=kill] select", label="worker-1 · worker.py")
    tab.click("form[data-do=kill] button")
    tab.wait_for_selector(f"{worker}[data-state=ended][data-code='137']", state="attached")
    tab.click("#tab-terminals")
    wait_until(lambda: tab.locator(".node.consumer").count() == 0)
    tab.click(f"{worker} [data-do=restart]")
    tab.wait_for_selector(f"{worker}[data-state=running]")
    wait_until(lambda: output(tab, "worker-1").count("Waiting for tasks") == 2)
    tab.click("#over")
    tab.wait_for_selector(worker, state="detached")
    assert tab.get_attribute("body", "data-next") == "0"
    wait_until(lambda: playground.children() == [], LIMIT)


def test_a_message_of_ones_own_a_replay_and_a_full_queue(tab: Any, playground: Playground) -> None:
    start(tab, playground, "work_queue")
    play(tab, 1)
    tab.click("#tab-publish")
    tab.fill("#publish [name=key]", "work_queue.tasks")
    tab.fill("#publish [name=headers]", '{"colour": "red"}')
    tab.fill("#publish [name=body]", "typed by hand")
    tab.click("#publish button")
    tab.wait_for_selector("text=RabbitMQ has it.")
    arrived(tab, published=1, routed=1, delivered=1)
    tab.click("#tab-terminals")
    wait_until(lambda: "Done with 'typed by hand'" in output(tab, "worker-1"))
    tab.click("#tab-messages")
    tab.click("#log tr:last-child button")
    details = tab.inner_text("#details")
    assert "typed by hand" in details
    assert '{"colour":"red"}' in re.sub(r"\s", "", details)
    tab.keyboard.press("Escape")
    tab.click("#replay")
    wait_until(lambda: tab.get_attribute("#stage", "data-replayed") == "3", LIMIT)
    # A key that no queue has is told, and seen.
    tab.click("#tab-publish")
    tab.fill("#publish [name=key]", "nowhere")
    tab.click("#publish button")
    wait_until(lambda: "no queue" in tab.inner_text("#toast"))
    arrived(tab, published=2, routed=1, delivered=1, lost=1)
    # A paused worker holds what it has; the queue fills up behind it.
    tab.click("#tab-break")
    tab.click("form[data-do=pause] button")
    tab.wait_for_selector("article[data-state=paused]", state="attached")
    tab.fill("form[data-do=fill] [name=count]", "30")
    tab.select_option("form[data-do=fill] select", "work_queue.tasks")
    tab.click("form[data-do=fill] button")
    queue = ".node[data-id='q:work_queue.tasks']"
    # The paused one may have been sent one of them.
    wait_until(lambda: tab.get_attribute(queue, "data-ready") in ("29", "30"), LIMIT)
    tab.click("form[data-do=pause] button")
    wait_until(lambda: tab.get_attribute(queue, "data-ready") == "0", LIMIT)


def test_a_dead_letter_is_seen_going_where_it_goes(tab: Any, playground: Playground) -> None:
    start(tab, playground, "reliability/dead_letters")
    play(tab, 3)
    wait_until(lambda: dots(tab).get("dead", 0) == 2, LIMIT)
    wait_until(lambda: tab.get_attribute(".node[data-id='q:dead_letters.orders.dead_letters']", "data-ready") == "2")


def test_a_cut_connection_comes_back(tab: Any, playground: Playground) -> None:
    start(tab, playground, "work_queue")
    play(tab, 1)
    tab.click("#tab-break")

    def cut() -> bool:
        # RabbitMQ's management API learns of a connection after some seconds.
        tab.click("form[data-do=cut] button")
        tab.wait_for_timeout(500)
        return "connecting again" in tab.text_content("article[data-terminal='worker-1'] pre")

    wait_until(cut, LIMIT, every=0.5)
    wait_until(lambda: tab.text_content("article[data-terminal='worker-1'] pre").count("Waiting for tasks") == 2, LIMIT)


@pytest.mark.parametrize(("width", "height"), [(360, 740), (768, 1024), (1920, 1080)])
def test_it_fits(tab: Any, playground: Playground, width: int, height: int) -> None:
    tab.set_viewport_size({"width": width, "height": height})
    start(tab, playground, "send_and_receive")
    play(tab, 2)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    narrow = tab.evaluate(
        "Math.min(...[...document.querySelectorAll('.node text')].map(text => text.getBoundingClientRect().height))"
    )
    assert narrow >= 10


def test_it_is_used_by_keyboard_and_says_what_things_are(tab: Any, playground: Playground) -> None:
    start(tab, playground, "send_and_receive")
    tab.keyboard.press("n")
    tab.wait_for_selector("body[data-next='1'][data-playing=false]")
    tab.focus("#tab-terminals")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.activeElement.id") == "tab-messages"
    assert tab.is_visible("#messages")
    unnamed = tab.evaluate(
        "[...document.querySelectorAll('button, select, input, textarea')].filter(it =>"
        " !(it.textContent.trim() || it.getAttribute('aria-label') || it.labels?.length)).map(it => it.outerHTML)"
    )
    assert unnamed == []
    theme = tab.get_attribute("html", "data-theme")
    tab.click("#theme")
    assert {theme, tab.get_attribute("html", "data-theme")} == {"light", "dark"}
    tab.click("#lesson a[data-source]")
    tab.wait_for_selector("#source pre:not(:empty)")
    assert "def main()" in tab.inner_text("#source pre") or "def declare" in tab.inner_text("#source pre")
