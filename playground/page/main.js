// The page: chooses an example, talks to the server over a WebSocket, and passes what it hears to the parts.

import { Charts } from "/page/charts.js";
import { Stage } from "/page/stage.js";
import { Terminals } from "/page/terminals.js";

const $ = (id) => document.getElementById(id);
const LOG_ROWS = 60;
const REPLAYED = 40;
const ENDED = 4404;

const page = {
  examples: [], example: null, outline: [], session: null, socket: null, next: 0, playing: false, flow: false,
  moves: [], labels: {}, catchUp: 0, closing: false, attempts: 0, replaying: 0,
};
const details = $("details");
const stage = new Stage($("stage"), showDetails, () => (details.hidden = true));
const terminals = new Terminals($("terminals"), act);
const charts = new Charts($("rates"), $("depths"), $("depth-legend"));

// The server

async function ask(path, options) {
  const answer = await fetch(path, options);
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error || `the server answered ${answer.status}`);
  return told;
}

function act(request) {
  if (page.socket?.readyState === WebSocket.OPEN) page.socket.send(JSON.stringify(request));
  else say("The server is not connected.");
}

async function choose(name, { session = null, step = 0 } = {}) {
  const left = page.session;
  await leave();
  const lesson = await ask(`/api/lesson?example=${encodeURIComponent(name)}`);
  page.example = name;
  page.outline = lesson.outline;
  document.title = `${lesson.title} · Playground`;
  document.body.dataset.view = "work";
  $("example").value = name;
  stage.prefix = `${name.split("/").at(-1)}.`;
  showLesson(lesson);
  page.catchUp = step;
  if (session) join(session);
  else await open(left);
}

async function open(left = null) {
  const body = JSON.stringify({ example: page.example, left: left || "" });
  const { session } = await ask("/api/sessions", { method: "POST", body });
  join(session);
}

function leave() {
  const { socket } = page;
  page.socket = page.session = null;
  if (!socket || socket.readyState === WebSocket.CLOSED) return Promise.resolve();
  return new Promise((done) => {
    socket.onclose = done;
    setTimeout(done, 2000);
    socket.close();
  });
}

function join(session) {
  page.session = session;
  const socket = new WebSocket(`ws://${location.host}/ws?session=${encodeURIComponent(session)}`);
  page.socket = socket;
  socket.onmessage = (event) => {
    if (page.socket === socket) hear(JSON.parse(event.data));
  };
  socket.onclose = (event) => page.socket === socket && lost(event);
}

async function lost(event) {
  document.body.dataset.connected = "no";
  if (event.code === ENDED) {
    // The link was to a session that is over: begin a new one, and play up to the same step.
    if (page.catchUp) say(`That session has ended. A new one plays up to step ${page.catchUp}.`);
    try {
      return await open();
    } catch (error) {
      return warn(error.message);
    }
  }
  if (event.code === 4429) return warn(event.reason);
  warn("The connection to the playground is lost; trying again …");
  const wait = Math.min(5000, 300 * 2 ** page.attempts++);
  setTimeout(() => page.session && page.socket.readyState === WebSocket.CLOSED && join(page.session), wait);
}

function hear(message) {
  const heard = {
    snapshot: begin,
    state: showState,
    stage: () => stage.update(message.stage),
    moves: () => moved(message.moves, message.labels),
    flow: () => flowed(message),
    terminal: () => {
      terminals.update(message, message.more, message.skipped);
      refreshChoices();
    },
    gone: () => terminals.remove(message.id),
    chart: () => charts.add(message.sample),
    notice: () => say(message.text),
    done: () => {
      if (message.do === "publish") $("publish-form").querySelector("output").textContent = "RabbitMQ has it.";
    },
    pong: () => {
      document.body.dataset.latency = Math.round(performance.now() - Number(message.n));
      document.body.dataset.pongs = Number(document.body.dataset.pongs || 0) + 1;
    },
  };
  heard[message.type]?.(message);
}

function begin(snapshot) {
  page.attempts = 0;
  warn("");
  document.body.dataset.connected = "yes";
  stage.clear();
  page.moves = snapshot.moves;
  page.labels = snapshot.labels;
  $("log").replaceChildren();
  stage.update(snapshot.stage);
  stage.recall(snapshot.moves, page.labels);
  for (const move of snapshot.moves.slice(-LOG_ROWS)) log(move);
  terminals.reset(snapshot.terminals);
  charts.reset(snapshot.chart);
  showState(snapshot);
  refreshChoices();
  document.body.dataset.session = snapshot.session;
  if (page.catchUp > snapshot.next) act({ do: "play", until: Math.min(page.catchUp, page.outline.length) });
  page.catchUp = 0;
}

// How long the server takes to answer, in milliseconds.
setInterval(() => page.socket?.readyState === WebSocket.OPEN && act({ do: "ping", n: String(performance.now()) }), 1000);

// Where we are

function showState(state) {
  const moved = state.next !== page.next || state.playing !== page.playing;
  Object.assign(page, { next: state.next, playing: state.playing, flow: state.flow });
  if (!state.flow) stage.flow([]);
  Object.assign(document.body.dataset, { next: state.next, playing: state.playing, flow: state.flow });
  const total = page.outline.length;
  $("progress").textContent = state.playing ? `playing ${state.next + 1} of ${total}` : state.next < total ? `step ${state.next} of ${total}` : `all ${total} played`;
  $("step").disabled = state.playing || state.next >= total;
  $("play").disabled = !state.playing && state.next >= total;
  $("play").textContent = state.playing ? "Hold" : "Play all";
  $("remark").textContent = state.remark;
  if (document.body.dataset.connected === "yes") warn(state.trouble);
  const { published, delivered, redelivered, dead, unroutable, sampled } = state.totals;
  const facts = [`${count(published)} published`, `${count(delivered)} delivered`];
  if (redelivered) facts.push(`${count(redelivered)} of them again`);
  if (dead) facts.push(`${count(dead)} dead letters`);
  if (unroutable) facts.push(`${count(unroutable)} wanted by no queue`);
  $("totals").textContent = facts.join(", ") + (sampled ? " (estimated)" : "");
  $("restart-broker").disabled = !state.ownBroker;
  $("no-restart").hidden = state.ownBroker;
  markSteps(state, moved);
  const address = new URL(location.href);
  address.search = new URLSearchParams({ example: page.example, session: page.session, step: state.next });
  history.replaceState(null, "", address);
}

const count = (number) => number.toLocaleString("en");

function markSteps(state, moved) {
  for (const figure of $("lesson").querySelectorAll(".step")) {
    const number = Number(figure.dataset.step);
    const now = number === page.next;
    const skipped = page.outline[number]?.ownBroker && !state.ownBroker;
    figure.classList.toggle("done", number < page.next && !skipped);
    figure.classList.toggle("skipped", skipped);
    figure.classList.toggle("now", now);
    figure.classList.toggle("playing", now && page.playing);
    figure.toggleAttribute("aria-current", now);
    if (now && moved) {
      const lesson = $("lesson");
      if (lesson.scrollHeight > lesson.clientHeight + 40) {
        const top = figure.offsetTop - lesson.offsetTop;
        if (top < lesson.scrollTop || top + figure.offsetHeight > lesson.scrollTop + lesson.clientHeight - 60)
          lesson.scrollTo({ top: top - 120 });
      }
    }
  }
}

function showLesson(lesson) {
  // The server has made this HTML from the README, in which HTML is text.
  $("lesson").innerHTML = lesson.html;
  $("lesson").scrollTop = 0;
  for (const figure of $("lesson").querySelectorAll(".step")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "play to here";
    button.addEventListener("click", () => act({ do: "play", until: Number(figure.dataset.step) + 1 }));
    figure.querySelector("figcaption").append(button);
  }
  for (const table of $("lesson").querySelectorAll("table")) table.tabIndex = 0;
}

// Messages

function moved(moves, labels) {
  Object.assign(page.labels, labels);
  page.moves.push(...moves);
  page.moves.splice(0, page.moves.length - 200);
  stage.show(moves, page.labels);
  for (const move of moves) log(move);
}

function flowed(message) {
  page.flow = true;
  stage.flow(message.edges);
  for (const move of message.samples) log(move);
}

const WHAT = { publish: "published", deliver: "delivered", dead: "dead letter" };

function log(move) {
  const row = document.createElement("tr");
  const what = move.redelivered ? "delivered again" : move.kind === "publish" && !move.queues.length ? "published, no queue" : WHAT[move.kind];
  const who = page.labels[move.node] || move.node;
  const from = move.kind === "publish" ? who : move.queue;
  const to = move.kind === "publish" ? move.queues.join(", ") || move.exchange : move.kind === "dead" ? move.target : who;
  row.dataset.kind = move.kind;
  const open = document.createElement("button");
  open.textContent = what;
  open.addEventListener("click", (event) => showDetails(move, event.clientX, event.clientY, true));
  [move.n, open, from, to, move.key ?? "", move.body ?? ""].forEach((value) => {
    const cell = document.createElement("td");
    if (value instanceof Node) cell.append(value);
    else cell.textContent = value;
    row.append(cell);
  });
  const rows = $("log");
  rows.prepend(row);
  while (rows.children.length > LOG_ROWS) rows.lastChild.remove();
}

function showDetails(move, x, y, focus = false) {
  const facts = { "": WHAT[move.kind] + (move.redelivered ? ", again" : ""), exchange: move.exchange || "(default)", key: move.key ?? "",
    queue: move.queue, to: move.target, reason: move.reason, size: move.size === undefined ? undefined : `${count(move.size)} bytes`, ...flat(move.properties ?? {}) };
  const list = details.querySelector("dl");
  list.replaceChildren();
  for (const [name, value] of Object.entries(facts)) {
    if (value === undefined || value === "") continue;
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    text.textContent = value;
    list.append(term, text);
  }
  const body = details.querySelector("pre");
  body.textContent = move.body ?? "";
  body.hidden = move.body === undefined;
  details.hidden = false;
  details.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - details.offsetWidth - 8))}px`;
  details.style.top = `${Math.max(8, Math.min(y + 14, innerHeight - details.offsetHeight - 8))}px`;
  if (focus) $("close-details").focus();
}

function flat(properties) {
  const { headers, ...rest } = properties;
  const shown = {};
  for (const [name, value] of Object.entries(rest)) shown[name] = typeof value === "object" ? JSON.stringify(value) : String(value);
  if (headers && Object.keys(headers).length) shown.headers = JSON.stringify(headers);
  return shown;
}

function replay() {
  const moves = page.moves.slice(-REPLAYED);
  if (!moves.length) return say("There is no message to show again yet.");
  const number = ++page.replaying;
  stage.finishAll();
  stage.arrivals.clear();
  const usual = stage.speed;
  stage.speed = 0.35;
  $("replay").disabled = true;
  let wait = 0;
  moves.forEach((move, index) => {
    // Long pauses are no part of the story.
    if (index) wait += Math.max(60, Math.min(1500, (move.time - moves[index - 1].time) * 3000));
    setTimeout(() => number === page.replaying && stage.show([move], page.labels, true), wait);
  });
  setTimeout(() => {
    stage.speed = usual;
    $("replay").disabled = false;
  }, wait + 5000);
}

// Choices and forms

function fill(select, options) {
  const wanted = JSON.stringify(options);
  if (select.dataset.options === wanted) return;
  select.dataset.options = wanted;
  const { value } = select;
  select.replaceChildren(...options.map(([id, text]) => new Option(text, id)));
  if (options.some(([id]) => id === value)) select.value = value;
}

function refreshChoices() {
  const running = terminals.running();
  for (const select of document.querySelectorAll("select.running")) fill(select, running.length ? running : [["", "(nothing runs)"]]);
  const queues = stage.data.queues.filter((it) => !it.exclusive || it.name).map((it) => [it.name, it.name]);
  for (const select of document.querySelectorAll("select.queues")) fill(select, queues.length ? queues : [["", "(no queue yet)"]]);
  const exchanges = [["", "(default: to the queue named like the key)"], ...stage.data.exchanges.filter((it) => !it.internal).map((it) => [it.name, `${it.name} (${it.type})`])];
  fill($("publish-form").elements.exchange, exchanges);
  const keys = new Set([...stage.data.bindings.map((it) => it.key), ...stage.data.queues.map((it) => it.name)].filter(Boolean));
  fill($("keys"), [...keys].map((key) => [key, key]));
}
setInterval(() => document.body.dataset.view === "work" && refreshChoices(), 1000);

$("publish-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { exchange, key, headers, body } = event.target.elements;
  event.target.querySelector("output").textContent = "";
  act({ do: "publish", exchange: exchange.value, key: key.value, headers: headers.value, body: body.value });
});
for (const form of document.querySelectorAll("#break form"))
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const { terminal, queue, count } = form.elements;
    act({ do: form.dataset.do, terminal: terminal?.value, queue: queue?.value, count: count ? Number(count.value) : undefined });
  });

$("step").addEventListener("click", () => act({ do: "step" }));
$("play").addEventListener("click", () => act({ do: page.playing ? "hold" : "play" }));
$("over").addEventListener("click", () => act({ do: "over" }));
$("replay").addEventListener("click", replay);
$("speed").addEventListener("change", () => (stage.speed = Number($("speed").value)));
$("freeze").addEventListener("click", () => {
  stage.frozen = !stage.frozen;
  $("freeze").setAttribute("aria-pressed", stage.frozen);
});
$("close-details").addEventListener("click", () => (details.hidden = true));
$("share").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is copied. It opens this session while it lasts, and the same step afterwards.");
  } catch {
    say(location.href);
  }
});
$("example").addEventListener("change", (event) => go(event.target.value));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") details.hidden = true;
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  if (document.body.dataset.view !== "work" || (event.key === " " && event.target.closest("button, a"))) return;
  const button = { n: "step", p: "play", r: "replay", " ": "freeze" }[event.key];
  if (button) {
    event.preventDefault();
    $(button).click();
  }
});
document.addEventListener("click", async (event) => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (link.dataset.source) {
    event.preventDefault();
    const answer = await fetch(link.getAttribute("href"));
    const dialog = $("source");
    dialog.querySelector("b").textContent = link.dataset.source;
    dialog.querySelector("pre").textContent = await answer.text();
    dialog.showModal();
  } else if (link.search.startsWith("?example=") && link.origin === location.origin) {
    event.preventDefault();
    go(new URLSearchParams(link.search).get("example"));
  }
});

const tabs = [...document.querySelectorAll("[role=tab]")];
function openTab(chosen) {
  for (const tab of tabs) {
    const on = tab === chosen;
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !on;
  }
  charts.draw();
}
tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => openTab(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) {
      const next = tabs[(index + step + tabs.length) % tabs.length];
      openTab(next);
      next.focus();
    }
  });
});

// Words to the reader

let silence;
function say(text) {
  $("toast").textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => ($("toast").textContent = ""), 7000);
}

function warn(text) {
  $("banner").hidden = !text;
  if ($("banner").textContent !== text) $("banner").textContent = text;
}

// Looks

function look(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
  charts.draw();
}
look(localStorage.getItem("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
$("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", theme);
  look(theme);
});
$("large").addEventListener("click", () => {
  const large = document.documentElement.dataset.size !== "large";
  document.documentElement.dataset.size = large ? "large" : "";
  $("large").setAttribute("aria-pressed", large);
  stage.draw();
  charts.draw();
});

// The beginning

async function go(name, more) {
  try {
    await choose(name, more);
  } catch (error) {
    warn(error.message);
  }
}

async function start() {
  try {
    page.examples = await ask("/api/examples");
  } catch (error) {
    return warn(error.message);
  }
  $("example").replaceChildren(...page.examples.map((it, index) => new Option(`${index + 1}. ${it.name}`, it.name)));
  $("cards").replaceChildren(
    ...page.examples.map((it, index) => {
      const [item, link, name, text, steps] = ["li", "a", "b", "span", "small"].map((tag) => document.createElement(tag));
      link.href = `/?example=${encodeURIComponent(it.name)}`;
      name.textContent = `${index + 1}. ${it.title}`;
      text.textContent = it.sentence;
      steps.textContent = ` ${it.steps} steps`;
      link.append(name, text, steps);
      item.append(link);
      return item;
    }),
  );
  const query = new URLSearchParams(location.search);
  if (query.get("example")) await go(query.get("example"), { session: query.get("session"), step: Number(query.get("step")) || 0 });
  document.body.dataset.ready = "yes";
}
start();
