// The stage: what there is, laid out from left to right (from top to bottom on a narrow screen), and the dots on it.

const SVG = "http://www.w3.org/2000/svg";
const HOP = 750; // milliseconds that a dot takes for an edge
const STAGGER = 90; // milliseconds between dots on the same edge
const BACKLOG = 4000; // milliseconds that a dot may wait for its turn
const MOST_DOTS = 250;
const DEAD = "M0 -8 8 0 0 8 -8 0Z";
const LOST = "M-6 -6 6 6M6 -6 -6 6";
const HEADINGS = { producer: "producers", exchange: "exchanges", queue: "queues", consumer: "consumers" };

function element(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

export class Stage {
  /** `onShow(move, x, y)` is called when a reader points at a dot, `onHide()` when no longer. */
  constructor(svg, onShow, onHide) {
    this.svg = svg;
    this.onShow = onShow;
    this.onHide = onHide;
    this.layers = ["edges", "nodes", "keys", "dots"].map((name) => element("g", { class: name }));
    this.svg.append(...this.layers);
    [this.edgeLayer, this.nodeLayer, this.keyLayer, this.dotLayer] = this.layers;
    this.prefix = "";
    this.speed = 1;
    this.frozen = false;
    this.held = false;
    this.clock = 0;
    this.last = performance.now();
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    new ResizeObserver(() => this.draw()).observe(svg.parentElement);
    this.clear();
    this.awake = false;
    // A hidden page gets no frames: what happens meanwhile is counted, and not shown late.
    document.addEventListener("visibilitychange", () => document.hidden && this.finishAll());
  }

  clear() {
    this.data = { producers: [], exchanges: [], queues: [], bindings: [], dead: [], consumers: [] };
    this.extra = new Map(); // nodes that a move told of before the stage did
    this.direct = new Set(); // edges of the default exchange, and others that no binding explains
    this.nodes = new Map();
    this.edges = new Map();
    this.dots = [];
    this.arrivals = new Map();
    this.flowing = new Map();
    for (const layer of this.layers) layer.replaceChildren();
    for (const name of ["published", "routed", "delivered", "redelivered", "dead", "lost", "replayed"])
      this.svg.dataset[name] = 0;
    this.draw();
  }

  /** What the server says there is. */
  update(data) {
    this.data = data;
    this.draw();
  }

  short(name) {
    if (name === "amq.rabbitmq.reply-to") return "direct reply-to";
    return this.prefix && name.startsWith(this.prefix) && name.length > this.prefix.length ? name.slice(this.prefix.length) : name;
  }

  // What there is

  model() {
    const nodes = new Map();
    const edges = new Map();
    const add = (id, kind, label, more = {}) => nodes.set(id, { id, kind, label, title: label, ...more });
    const link = (from, to, more = {}) => {
      if (!nodes.has(from) || !nodes.has(to)) return;
      const key = `${from}|${to}`;
      const old = edges.get(key);
      edges.set(key, old ? { ...old, label: joined(old.label, more.label) } : { from, to, label: "", ...more });
    };
    for (const it of this.data.producers) add(it.node, "producer", it.label, { sub: it.script, gone: !it.alive });
    for (const it of this.data.exchanges)
      add(`x:${it.name}`, "exchange", this.short(it.name), { title: it.name, sub: it.type, internal: it.internal });
    for (const it of this.data.queues) {
      const limits = Object.entries(it.limits).map(([name, value]) => `${name} ${value}`);
      add(`q:${it.name}`, "queue", this.short(it.name), {
        title: [it.name, ...limits].join("\n"),
        sub: `${it.exclusive ? "exclusive" : it.type}${it.unacked ? ` · ${it.unacked} unacked` : ""}`,
        count: it.ready,
      });
    }
    for (const it of this.data.consumers) {
      const facts = it.script ? [it.script] : [];
      if (it.prefetch !== null) facts.push(it.prefetch ? `prefetch ${it.prefetch}` : "no prefetch");
      if (it.unacked) facts.push(`${it.unacked} unacked`);
      add(`k:${it.node}`, "consumer", it.label, { sub: facts.join(" · ") || "consumer" });
    }
    for (const [id, it] of this.extra) {
      if (nodes.has(id) || it.until < performance.now()) this.extra.delete(id);
      else add(id, it.kind, it.label, { sub: it.sub || "" });
    }
    if ([...this.direct].some((edge) => edge.includes("x:|")))
      add("x:", "exchange", "default", { title: "the default exchange: to the queue that is named like the key", sub: "direct" });
    // A fanout exchange does not look at keys.
    const blind = new Set(this.data.exchanges.filter((it) => it.type === "fanout").map((it) => `x:${it.name}`));
    for (const it of this.data.bindings) link(it.from, it.to, { label: blind.has(it.from) ? "" : keyOf(it) });
    for (const it of this.data.consumers) link(`q:${it.queue}`, `k:${it.node}`);
    for (const it of this.data.dead) {
      if (it.exchange === "x:") link(it.from, it.to, { dead: true });
      else link(it.from, it.exchange, { dead: true });
    }
    for (const edge of this.direct) {
      const [from, to] = edge.split("|");
      if (!edges.has(edge)) link(from, to);
    }
    return [nodes, edges];
  }

  ranks(nodes, edges) {
    const list = [...nodes.values()];
    const of = (kind) => list.filter((node) => node.kind === kind);
    const depth = new Map(of("exchange").map((node) => [node.id, 0]));
    for (let round = 0; round < 4; round++)
      for (const { from, to } of edges.values())
        if (depth.has(from) && depth.has(to)) depth.set(to, Math.min(3, Math.max(depth.get(to), depth.get(from) + 1)));
    const levels = [0, 1, 2, 3].map((level) => of("exchange").filter((node) => depth.get(node.id) === level));
    const targets = new Set(this.data.dead.map((it) => it.to));
    const queues = of("queue").sort(
      (a, b) => targets.has(a.id) - targets.has(b.id) || a.label.localeCompare(b.label, "en", { numeric: true }),
    );
    const ranks = [of("producer"), ...levels.filter((level, place) => level.length || !place), queues, of("consumer")];
    const place = new Map();
    const settle = (rank) => rank.forEach((node, index) => place.set(node.id, (index + 0.5) / rank.length));
    const sorted = (rank, side) => {
      const mean = (node) => {
        const ends = [...edges.values()].flatMap((edge) => (edge.dead ? [] : side(edge, node.id)));
        const known = ends.filter((id) => place.has(id)).map((id) => place.get(id));
        return known.length ? known.reduce((a, b) => a + b) / known.length : 2;
      };
      const means = new Map(rank.map((node) => [node.id, mean(node)]));
      rank.sort((a, b) => means.get(a.id) - means.get(b.id));
      settle(rank);
    };
    const after = (edge, id) => (edge.from === id ? [edge.to] : []);
    const before = (edge, id) => (edge.to === id ? [edge.from] : []);
    settle(queues);
    for (let level = ranks.length - 3; level >= 0; level--) sorted(ranks[level], after);
    sorted(ranks[ranks.length - 1], before);
    return ranks;
  }

  draw() {
    const [nodes, edges] = this.model();
    const ranks = this.ranks(nodes, edges);
    document.getElementById("empty").hidden = nodes.size > 0;
    const scale = parseFloat(getComputedStyle(document.documentElement).fontSize) / 15;
    const width = Math.max(300, this.svg.parentElement.clientWidth / scale);
    const vertical = width < 560;
    const height = vertical ? this.placeDown(ranks, width) : this.placeAcross(ranks, width);
    this.vertical = vertical;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.style.height = `${height * scale}px`;
    this.drawNodes(nodes, ranks, vertical);
    this.drawEdges(nodes, edges);
    for (const edge of this.direct) if (!edges.has(edge)) this.direct.delete(edge);
  }

  placeAcross(ranks, width) {
    const used = ranks.length;
    const gap = Math.max(34, Math.min(110, width * 0.07));
    const w = Math.max(84, Math.min(210, (width - 16 - gap * (used - 1)) / used));
    const tall = Math.max(1, ...ranks.map((rank) => rank.length));
    const room = this.svg.parentElement.clientHeight - 30;
    const step = Math.max(54, Math.min(78, room / tall));
    const height = Math.max(room + 26, 26 + tall * step);
    ranks.forEach((rank, column) => {
      const x = used > 1 ? 8 + (column * (width - 16 - w)) / (used - 1) : 8;
      const top = 24 + (height - 26 - rank.length * step) / 2;
      rank.forEach((node, row) => Object.assign(node, { x, y: top + row * step + (step - 44) / 2, w, h: 44 }));
    });
    return height;
  }

  placeDown(ranks, width) {
    let y = 22;
    for (const rank of ranks) {
      const across = Math.max(1, Math.min(rank.length, Math.floor(width / 118)));
      const w = Math.min(200, (width - 12) / across - 8);
      rank.forEach((node, index) => {
        const inRow = Math.min(across, rank.length - Math.floor(index / across) * across);
        const left = (width - inRow * (w + 8)) / 2 + 4;
        Object.assign(node, { x: left + (index % across) * (w + 8), y: y + Math.floor(index / across) * 56, w, h: 44 });
      });
      y += Math.max(1, Math.ceil(rank.length / across)) * 56 + 34;
    }
    return y;
  }

  drawNodes(nodes, ranks, vertical) {
    for (const [id, old] of this.nodes) if (!nodes.has(id)) old.group.remove();
    for (const node of nodes.values()) {
      const old = this.nodes.get(node.id);
      node.group = old ? old.group : element("g");
      if (!old) this.nodeLayer.append(node.group);
      this.drawNode(node);
    }
    this.nodes = nodes;
    const heads = [];
    if (nodes.size)
      for (const rank of ranks.filter((rank) => rank.length)) {
        const [first] = rank;
        const y = vertical ? first.y - 6 : 14;
        const x = vertical ? 8 : first.x + first.w / 2;
        const head = element("text", { class: "heading", x, y }, HEADINGS[first.kind]);
        if (vertical) head.style.textAnchor = "start";
        heads.push(head);
      }
    this.nodeLayer.querySelectorAll(".heading").forEach((head) => head.remove());
    this.nodeLayer.prepend(...heads);
  }

  drawNode(node) {
    const { group, kind, w, h } = node;
    const hit = group.classList.contains("hit");
    group.setAttribute("class", `node ${kind}${node.gone ? " gone" : ""}${hit ? " hit" : ""}`);
    group.setAttribute("transform", `translate(${node.x} ${node.y})`);
    group.dataset.id = node.id;
    const drawn = JSON.stringify([kind, w, node.label, node.sub, node.count, node.title]);
    if (group.dataset.drawn === drawn) return;
    group.dataset.drawn = drawn;
    const box =
      kind === "exchange"
        ? element("path", { class: "box", d: `M12 0H${w - 12}L${w} ${h / 2} ${w - 12} ${h}H12L0 ${h / 2}Z` })
        : element("rect", { class: "box", width: w, height: h, rx: kind === "queue" ? 3 : 14 });
    const parts = [element("title", {}, node.title), box];
    const inset = kind === "exchange" ? 16 : 10;
    let room = w - 2 * inset;
    if (kind === "queue") {
      parts.push(element("path", { class: "bars", d: `M4 4V${h - 4}M${w - 4} 4V${h - 4}`, fill: "none" }));
      parts.push(element("text", { class: "count", x: w - 9, y: h / 2 + 5 }, String(node.count ?? "")));
      room -= 9 * String(node.count ?? "").length + 6;
      group.dataset.ready = node.count ?? "";
    }
    parts.push(element("text", { x: inset, y: node.sub ? 19 : 27 }, cut(node.label, room / 7.9)));
    if (node.sub) parts.push(element("text", { class: "sub", x: inset, y: 35 }, cut(node.sub, room / 6.8)));
    group.replaceChildren(...parts);
  }

  drawEdges(nodes, edges) {
    for (const [key, old] of this.edges)
      if (!edges.has(key)) {
        old.path.remove();
        old.text?.remove();
      }
    for (const [key, edge] of edges) {
      const old = this.edges.get(key);
      edge.path = old ? old.path : element("path");
      edge.next = old ? old.next : 0;
      if (!old) this.edgeLayer.append(edge.path);
      const [from, to] = [nodes.get(edge.from), nodes.get(edge.to)];
      const [d, x, y] = this.curve(from, to);
      edge.path.setAttribute("d", d);
      edge.length = 0;
      const rate = this.flowing.get(key);
      edge.path.setAttribute("class", `edge${edge.dead ? " dead" : ""}${rate ? " flow" : ""}`);
      edge.path.style.strokeWidth = rate ? `${Math.min(9, 1.5 + Math.log10(1 + rate) * 1.8)}px` : "";
      edge.path.dataset.edge = key;
      const label = rate ? `${amount(rate)}/s` : edge.label;
      edge.text = old?.text;
      if (label) {
        if (!edge.text) this.keyLayer.append((edge.text = element("text")));
        const span = Math.hypot(to.x - from.x, to.y - from.y) - (this.vertical ? 0 : from.w);
        edge.text.textContent = rate ? label : cut(label, Math.max(6, span / 6));
        edge.text.setAttribute("class", rate ? "key rate" : "key");
        edge.text.setAttribute("x", x);
        edge.text.setAttribute("y", y - 4);
      } else if (edge.text) {
        edge.text.remove();
        edge.text = undefined;
      }
    }
    this.edges = edges;
  }

  /** The path of an edge, and where its label goes. */
  curve(from, to) {
    if (this.vertical) {
      const [ax, bx] = [from.x + from.w / 2, to.x + to.w / 2];
      if (to.y > from.y + from.h) {
        const [ay, by] = [from.y + from.h, to.y];
        const my = (ay + by) / 2;
        return [`M${ax} ${ay}C${ax} ${my} ${bx} ${my} ${bx} ${by}`, (ax + bx) / 2, my + 4];
      }
      const right = Math.max(from.x + from.w, to.x + to.w) + 10;
      const [ay, by] = [from.y + from.h / 2, to.y + to.h / 2];
      return [`M${from.x + from.w} ${ay}C${right} ${ay} ${right} ${by} ${to.x + to.w} ${by}`, right - 12, (ay + by) / 2];
    }
    const [ay, by] = [from.y + from.h / 2, to.y + to.h / 2];
    if (to.x >= from.x + from.w) {
      const [ax, bx] = [from.x + from.w, to.x];
      const mx = (ax + bx) / 2;
      return [`M${ax} ${ay}C${mx} ${ay} ${mx} ${by} ${bx} ${by}`, mx, (ay + by) / 2];
    }
    if (Math.abs(to.x - from.x) < 1) {
      const right = from.x + from.w;
      const bulge = right + 34;
      return [`M${right} ${ay + 12}C${bulge} ${ay + 12} ${bulge} ${by} ${right} ${by}`, right + 20, (ay + by) / 2 + 10];
    }
    const [ax, bx] = [from.x, to.x + to.w];
    const low = 13;
    const mx = (ax + bx) / 2;
    return [`M${ax} ${ay + low}C${mx} ${ay + low} ${mx} ${by + low} ${bx} ${by + low}`, mx, (ay + by) / 2 + low + 14];
  }

  // The messages

  /** Make sure that a move's ends and edges are on the stage; return the edges, in order, for each way it went. */
  ways(move, labels) {
    const need = (id, kind, label) => {
      if (!this.nodes.has(id)) this.extra.set(id, { kind, label, until: performance.now() + 5000 });
    };
    const ways = [];
    if (move.kind === "publish") {
      need(move.node, "producer", labels[move.node] || move.node);
      const exchange = `x:${move.exchange}`;
      if (move.exchange) need(exchange, "exchange", this.short(move.exchange));
      this.direct.add(`${move.node}|${exchange}`);
      for (const queue of move.queues) {
        need(`q:${queue}`, "queue", this.short(queue));
        const way = this.route(exchange, `q:${queue}`);
        way.slice(0, -1).forEach((from, index) => this.direct.add(`${from}|${way[index + 1]}`));
        ways.push(way);
      }
    } else if (move.kind === "deliver") {
      need(`q:${move.queue}`, "queue", this.short(move.queue));
      need(`k:${move.node}`, "consumer", labels[move.node] || move.node);
      this.direct.add(`q:${move.queue}|k:${move.node}`);
      ways.push([`q:${move.queue}`, `k:${move.node}`]);
    } else if (move.queue) {
      need(`q:${move.target}`, "queue", this.short(move.target));
      const way = move.exchange ? [`q:${move.queue}`, ...this.route(`x:${move.exchange}`, `q:${move.target}`)] : [`q:${move.queue}`, `q:${move.target}`];
      way.slice(0, -1).forEach((from, index) => this.direct.add(`${from}|${way[index + 1]}`));
      ways.push(way);
    }
    return ways;
  }

  /** The bindings from an exchange to a queue, by way of other exchanges if need be. */
  route(from, to) {
    const seen = new Map([[from, null]]);
    const open = [from];
    while (open.length) {
      const at = open.shift();
      if (at === to) {
        const way = [];
        for (let step = to; step !== null; step = seen.get(step)) way.unshift(step);
        return way;
      }
      for (const binding of this.data.bindings)
        if (binding.from === at && !seen.has(binding.to)) {
          seen.set(binding.to, at);
          open.push(binding.to);
        }
    }
    return [from, to];
  }

  /** What happened before the page was there: the places, without the dots. */
  recall(moves, labels) {
    for (const move of moves.slice(-60)) if (!move.node || labels[move.node]) this.ways(move, labels);
    this.extra.clear();
    this.draw();
  }

  /** Show moves. */
  show(moves, labels, replay = false) {
    const ways = moves.map((move) => this.ways(move, labels));
    if (moves.some((_, index) => ways[index].some((way) => way.some((id) => !this.nodes.has(id)))) || this.unlinked()) this.draw();
    moves.forEach((move, index) => this.start(move, ways[index], replay));
  }

  unlinked() {
    for (const edge of this.direct) if (!this.edges.has(edge)) return true;
    return false;
  }

  start(move, ways, replay) {
    const hidden = document.hidden || this.dots.length > MOST_DOTS;
    const dot = (way, at, done, more = {}) => {
      const made = { move, way, leg: 0, begin: at, done, replay, ...more };
      if (hidden) {
        this.finish(made);
        return at;
      }
      // Dots that set out together would lie on top of each other.
      const first = this.edges.get(`${way[0]}|${way[1]}`);
      if (first) {
        made.begin = Math.max(at, Math.min(first.next, at + BACKLOG));
        first.next = made.begin + STAGGER;
      }
      this.dots.push(made);
      this.wake();
      return made.begin + HOP * (way.length - 1);
    };
    const arrival = (queue) => this.arrivals.get(`${move.id}|${queue}`) ?? 0;
    if (move.kind === "publish") {
      const there = dot([move.node, `x:${move.exchange}`], this.clock, "published");
      if (!move.queues.length) dot([`x:${move.exchange}`], there, "lost");
      ways.forEach((way, index) => this.arrivals.set(`${move.id}|${move.queues[index]}`, dot(way, there, "routed")));
    } else if (move.kind === "deliver") {
      const there = dot(ways[0], Math.max(this.clock, arrival(move.queue)), "delivered");
      this.arrivals.set(`|${move.queue}`, there);
    } else if (ways.length) {
      const held = this.arrivals.get(`|${move.queue}`) ?? 0;
      this.arrivals.set(`${move.id}|${move.target}`, dot(ways[0], Math.max(this.clock, held, arrival(move.queue)), "dead"));
    }
    if (this.arrivals.size > 2000) this.arrivals.clear();
  }

  /** Ask for frames while there are dots; without, the page costs nothing. */
  wake() {
    if (this.awake) return;
    this.awake = true;
    this.last = performance.now();
    const frame = (now) => {
      this.advance(now);
      this.awake = this.dots.length > 0;
      if (this.awake) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  advance(now) {
    const passed = Math.min(100, now - this.last);
    this.last = now;
    if (this.frozen || this.held) return;
    this.clock += passed * this.speed;
    if (this.dots.length) this.dots = this.dots.filter((dot) => this.move(dot));
  }

  /** Move a dot; return whether it goes on. */
  move(dot) {
    const at = this.clock - dot.begin;
    if (at < 0) return true;
    const leg = Math.floor(at / HOP);
    if (leg >= Math.max(1, dot.way.length - 1)) {
      this.finish(dot);
      return false;
    }
    if (!dot.shape) this.dress(dot);
    const part = this.still.matches ? 0.5 : ease((at % HOP) / HOP);
    if (dot.way.length === 1) {
      const node = this.nodes.get(dot.way[0]);
      if (node) dot.shape.setAttribute("transform", `translate(${node.x + node.w / 2} ${node.y + node.h + part * 26})`);
      dot.shape.style.opacity = 1 - part * 0.7;
      return true;
    }
    const edge = this.edges.get(`${dot.way[leg]}|${dot.way[leg + 1]}`);
    if (edge) {
      edge.length ||= edge.path.getTotalLength();
      const point = edge.path.getPointAtLength(edge.length * part);
      dot.shape.setAttribute("transform", `translate(${point.x.toFixed(1)} ${point.y.toFixed(1)})`);
    }
    return true;
  }

  dress(dot) {
    const { move } = dot;
    const kind = dot.done === "lost" ? "lost" : move.kind === "dead" ? "dead" : move.redelivered ? "redelivered" : move.kind;
    dot.shape =
      kind === "dead" || kind === "lost" ? element("path", { d: kind === "dead" ? DEAD : LOST }) : element("circle", { r: 6.5 });
    dot.shape.setAttribute("class", `dot ${kind}`);
    dot.shape.addEventListener("pointerenter", (event) => {
      this.held = true;
      this.onShow(move, event.clientX, event.clientY);
    });
    dot.shape.addEventListener("pointerleave", () => {
      this.held = false;
      this.onHide();
    });
    this.dotLayer.append(dot.shape);
  }

  finish(dot) {
    const { dataset } = this.svg;
    if (dot.replay) dataset.replayed = +dataset.replayed + 1;
    else {
      dataset[dot.done] = +dataset[dot.done] + 1;
      if (dot.done === "delivered" && dot.move.redelivered) dataset.redelivered = +dataset.redelivered + 1;
      const edge = this.edges.get(`${dot.way.at(-2)}|${dot.way.at(-1)}`);
      if (edge) edge.path.dataset.count = +(edge.path.dataset.count || 0) + 1;
    }
    const node = this.nodes.get(dot.way.at(-1))?.group;
    if (node && dot.shape) {
      node.classList.add("hit");
      setTimeout(() => node.classList.remove("hit"), 250);
    }
    if (dot.shape) {
      if (dot.shape.matches(":hover")) this.held = false;
      dot.shape.remove();
    }
  }

  finishAll() {
    for (const dot of this.dots) this.finish(dot);
    this.dots = [];
  }

  /** Rates instead of dots: [[from, to, messages a second], …]; none ends it. */
  flow(edges) {
    const was = this.flowing.size;
    this.flowing = new Map();
    for (const [from, to, rate] of edges) {
      const end = /^([tcs]:|you$)/.test(to) ? `k:${to}` : to;
      const key = `${from}|${end}`;
      this.direct.add(key);
      this.flowing.set(key, rate);
      for (const [id, kind] of [[from, "producer"], [end, "consumer"]])
        if (!this.nodes.has(id) && !id.startsWith("x:") && !id.startsWith("q:"))
          this.extra.set(id, { kind, label: id, until: performance.now() + 5000 });
    }
    if (edges.length && this.dots.length) this.finishAll();
    if (was || edges.length) this.draw();
  }
}

const ease = (t) => (t < 0.5 ? 2 * t * t : 1 - (2 - 2 * t) ** 2 / 2);

export function amount(number) {
  if (number >= 1000) return `${(number / 1000).toFixed(number >= 10000 ? 0 : 1)}k`;
  return number >= 10 ? Math.round(number).toString() : String(Math.round(number * 10) / 10);
}

function cut(text, most) {
  const room = Math.max(4, Math.floor(most));
  if (text.length <= room) return text;
  const tail = Math.floor((room - 1) * 0.6);
  return `${text.slice(0, room - 1 - tail)}…${text.slice(text.length - tail)}`;
}

function joined(a, b) {
  return [...new Set([a, b].filter(Boolean))].join(", ");
}

function keyOf(binding) {
  const facts = Object.entries(binding.arguments).map(([key, value]) => `${key}=${value}`);
  return facts.length ? facts.join(" ") : binding.key;
}
