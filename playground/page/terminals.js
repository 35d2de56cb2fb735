// One card for each process: what it prints, and what can be done to it.

const KEPT = 400;

export class Terminals {
  /** `act(request)` sends what a reader asks for. */
  constructor(panel, act) {
    this.panel = panel;
    this.act = act;
    this.cards = new Map();
  }

  reset(states) {
    this.panel.replaceChildren();
    this.cards.clear();
    for (const state of states) this.update(state, state.lines);
  }

  remove(id) {
    this.cards.get(id)?.card.remove();
    this.cards.delete(id);
  }

  update(state, lines, skipped = 0) {
    const it = this.cards.get(state.id) || this.make(state);
    it.state = state;
    it.card.dataset.state = state.running ? (state.paused ? "paused" : "running") : "ended";
    it.card.dataset.code = state.code ?? "";
    it.title.textContent = `${state.title} · ${state.script}`;
    it.card.dataset.role = state.role;
    it.card.setAttribute("aria-label", `Terminal ${it.title.textContent}`);
    const killed = state.code > 128;
    it.badge.textContent = state.running ? (state.paused ? "paused" : "running") : killed ? "killed" : state.code === null ? "starting" : `exit code ${state.code}`;
    it.badge.className = `state ${state.running ? "running" : state.code ? "failed" : ""}`;
    for (const name of ["interrupt", "kill", "pause"]) it.buttons[name].disabled = !state.running;
    it.buttons.pause.textContent = state.paused ? "Go on" : "Pause";
    const { output } = it;
    const atEnd = output.scrollTop + output.clientHeight > output.scrollHeight - 30;
    if (skipped) it.lines.push(`… ${skipped.toLocaleString("en")} lines more …`);
    it.lines.push(...lines);
    it.lines.splice(0, it.lines.length - KEPT);
    // Always as text: what a process prints is no HTML.
    output.textContent = it.lines.join("\n");
    if (atEnd) output.scrollTop = output.scrollHeight;
  }

  make(state) {
    const make = (name, className = "", text = "") => Object.assign(document.createElement(name), { className, textContent: text });
    const card = make("article", "terminal");
    card.dataset.terminal = state.id;
    const head = make("header");
    const it = { card, title: make("h3"), badge: make("span", "state"), output: make("pre"), buttons: {}, lines: [], state };
    it.output.tabIndex = 0;
    head.append(it.title, it.badge);
    const actions = { interrupt: ["Stop", "SIGINT, as Ctrl-C"], kill: ["Kill", "SIGKILL"], pause: ["Pause", "SIGSTOP, and SIGCONT"],
      restart: ["Restart", "Run the same command again"], another: ["One more", "Run the same command in another terminal, too"] };
    for (const [name, [text, title]] of Object.entries(actions)) {
      const button = Object.assign(make("button", "", text), { title, type: "button" });
      button.dataset.do = name;
      button.addEventListener("click", () => this.act({ do: name, terminal: it.state.id }));
      it.buttons[name] = button;
      head.append(button);
    }
    card.append(head, it.output);
    this.panel.append(card);
    this.cards.set(state.id, it);
    return it;
  }

  /** [id, title] of those that run. */
  running() {
    return [...this.cards.values()].filter((it) => it.state.running).map((it) => [it.state.id, it.title.textContent]);
  }
}
