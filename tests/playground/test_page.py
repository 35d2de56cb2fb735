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


def output(tab: Any, terminal: int) -> str:
    """What the terminal of this number shows."""
    return str(tab.inner_text(f"article[data-terminal='{terminal}'] pre"))


def test_a_work_queue_from_start_to_end_with_killed_workers(tab: Any, playground: Playground) -> None:
    start(tab, playground, "work_queue")
    # Two workers, a film, three letters: each message is a dot to the exchange, to the queue, and to a worker.
    play(tab, 5)
    arrived(tab, published=4, routed=4, delivered=4)
    assert tab.get_attribute("[data-edge='s:new_task.py|x:']", "data-count") == "4"
    assert tab.get_attribute("[data-edge='x:|q:work_queue.tasks']", "data-count") == "4"
    first = tab.get_attribute("[data-edge='q:work_queue.tasks|k:t:1']", "data-count")
    second = tab.get_attribute("[data-edge='q:work_queue.tasks|k:t:2']", "data-count")
    assert (first, second) == ("1", "3")
    # The README's own experiments. A worker with automatic acknowledgements is killed: its tasks are lost.
    play(tab, 12)
    arrived(tab, published=7, routed=7, delivered=7)
    assert "(ended by SIGKILL)" in output(tab, 1)
    # A worker is killed in the middle of a task, and the other one gets the task again.
    play(tab, 18)
    arrived(tab, published=8, routed=8, delivered=9, redelivered=1)
    assert output(tab, 2).count("Done with 'Film..........'") == 1
    tab.click("#play")
    tab.wait_for_selector("body[data-next='52'][data-playing=false]", timeout=3 * LIMIT * 1000)
    assert "“Restart RabbitMQ” is left out" in tab.inner_text("#remark")
    # The unreadable task is delivered three times, and the film of the missed heartbeats twice.
    arrived(tab, published=15, routed=15, delivered=19, redelivered=4)
    assert "15 published, 19 delivered, 4 of them again" in tab.inner_text("#totals")
    assert tab.locator(".step.done").count() == 45


def test_one_message_fans_out_a_second_browser_joins_and_a_reload_keeps_all(
    tab: Any, browser: Any, playground: Playground
) -> None:
    start(tab, playground, "publish_subscribe")
    play(tab, 3)
    arrived(tab, published=1, routed=2, delivered=2)
    boxes = "() => [...document.querySelectorAll('.node.consumer')].length"
    wait_until(lambda: tab.evaluate(boxes) == 2)
    assert tab.locator(".node.queue").count() == 2
    # Another browser opens the same link, sees the same, and sees what happens from now on.
    late = browser.new_context().new_page()
    late.goto(tab.url)
    late.wait_for_selector("body[data-connected=yes][data-next='3']")
    assert "the shop is open" in output(late, 1)
    assert late.locator("#log tr").count() == tab.locator("#log tr").count()
    late.click("#step")
    tab.wait_for_selector("body[data-next='4'][data-playing=false]")
    # Nobody listens: the message is lost at the exchange. Later a durable queue gets one.
    play(late, 9)
    wait_until(lambda: dots(late) == {"published": 2, "lost": 1, "routed": 1}, LIMIT)
    late.context.close()
    session = parse_qs(urlsplit(tab.url).query)["session"]
    arrived(tab, published=3, lost=1, routed=3, delivered=2)
    tab.reload()
    tab.wait_for_selector("body[data-connected=yes][data-next='9']")
    assert parse_qs(urlsplit(tab.url).query)["session"] == session
    assert "the shop is open" in output(tab, 1)
    assert "Waiting for logs as 'archive'" in output(tab, 2)
    wait_until(lambda: tab.get_attribute(".node.queue", "data-ready") == "1", LIMIT)


def test_a_link_to_a_session_that_has_ended_plays_up_to_its_step(tab: Any, playground: Playground) -> None:
    tab.goto(f"{playground.url}/?example=work_queue&session=gone&step=2")
    tab.wait_for_selector("body[data-connected=yes][data-next='2'][data-playing=false]")
    assert "waits for tasks" in output(tab, 2)
    assert "session=gone" not in tab.url


def test_terminals_are_stopped_killed_started_again_and_multiplied(tab: Any, playground: Playground) -> None:
    start(tab, playground, "work_queue")
    play(tab, 1)
    worker = "article[data-terminal='1']"
    tab.click(f"{worker} [data-do=another]")
    # The README has three terminals, so this is the fourth.
    more = "article[data-terminal='4']"
    tab.wait_for_selector(f"{more}[data-state=running]")
    wait_until(lambda: "waits for tasks" in output(tab, 4))
    wait_until(lambda: tab.locator(".node.consumer").count() == 2)
    tab.click(f"{more} [data-do=interrupt]")
    tab.wait_for_selector(f"{more}[data-state=ended][data-code='0']")
    # By the menu, too.
    tab.click("#tab-break")
    tab.select_option("form[data-do=kill] select", label="1 worker · worker.py")
    tab.click("form[data-do=kill] button")
    tab.wait_for_selector(f"{worker}[data-state=ended][data-code='137']", state="attached")
    tab.click("#tab-terminals")
    wait_until(lambda: tab.locator(".node.consumer").count() == 0)
    tab.click(f"{worker} [data-do=restart]")
    tab.wait_for_selector(f"{worker}[data-state=running]")
    wait_until(lambda: output(tab, 1).count("waits for tasks") == 2)
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
    wait_until(lambda: "Done with 'typed by hand'" in output(tab, 1))
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
    play(tab, 7)
    wait_until(lambda: dots(tab).get("dead", 0) == 2, LIMIT)
    wait_until(lambda: tab.get_attribute(".node[data-id='q:dead_letters.orders.dead_letters']", "data-ready") == "2")


def cut(tab: Any, done: str) -> None:
    """Cut the connection of terminal 1, until its program prints ``done``."""
    tab.click("#tab-break")

    def seen() -> bool:
        # RabbitMQ's management API learns of a connection after some seconds.
        tab.click("form[data-do=cut] button")
        tab.wait_for_timeout(500)
        return done in tab.text_content("article[data-terminal='1'] pre")

    wait_until(seen, LIMIT, every=0.5)


def test_a_cut_connection_ends_a_plain_script(tab: Any, playground: Playground) -> None:
    start(tab, playground, "work_queue")
    play(tab, 1)
    cut(tab, "error: RabbitMQ at")
    tab.wait_for_selector("article[data-terminal='1'][data-state=ended][data-code='69']", state="attached")


def test_a_cut_connection_of_a_robust_script_comes_back(tab: Any, playground: Playground) -> None:
    start(tab, playground, "reliability/dead_letters")
    play(tab, 1)
    cut(tab, "connecting again")
    wait_until(lambda: tab.text_content("article[data-terminal='1'] pre").count("Waiting for orders") == 2, LIMIT)


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
