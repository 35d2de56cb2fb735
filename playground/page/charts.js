// Lines over the last minutes, drawn on a canvas.

const SECONDS = 180;

export class Charts {
  constructor(rates, depths, legend) {
    Object.assign(this, { rates, depths, legend });
    this.samples = [];
  }

  reset(samples) {
    this.samples = samples.slice(-SECONDS);
    this.draw();
  }

  add(sample) {
    this.samples.push(sample);
    this.samples = this.samples.slice(-SECONDS);
    this.draw();
  }

  draw() {
    if (!this.rates.offsetParent) return;
    const last = this.samples.at(-1) || { published: 0, delivered: 0, depths: {} };
    plot(this.rates, [
      ["c0", this.samples.map((it) => it.published)],
      ["c1", this.samples.map((it) => it.delivered)],
    ]);
    this.rates.setAttribute("aria-label", `Published ${last.published} a second, delivered ${last.delivered} a second`);
    const names = Object.keys(last.depths).slice(0, 6);
    plot(this.depths, names.map((name, index) => [`c${index}`, this.samples.map((it) => it.depths[name] ?? 0)]));
    this.depths.setAttribute("aria-label", names.map((name) => `${name}: ${last.depths[name]} ready`).join(", ") || "No queues");
    const marks = names.map((name, index) => {
      const mark = document.createElement("b");
      mark.className = `c${index}`;
      mark.textContent = `${name} (${last.depths[name]})`;
      return mark;
    });
    this.legend.replaceChildren(...marks);
  }
}

function plot(canvas, lines) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  const [left, bottom] = [44, height - 18];
  const top = Math.max(1, ...lines.flatMap(([, values]) => values));
  const high = niceTop(top);
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = style.getPropertyValue("--dim");
  pen.strokeStyle = style.getPropertyValue("--line");
  for (const part of [0, 0.5, 1]) {
    const y = bottom - part * (bottom - 8);
    pen.beginPath();
    pen.moveTo(left, y);
    pen.lineTo(width, y);
    pen.stroke();
    pen.textAlign = "right";
    pen.fillText((high * part).toLocaleString("en"), left - 5, y + 4);
  }
  pen.textAlign = "left";
  pen.fillText("3 minutes ago", left, height - 3);
  pen.textAlign = "right";
  pen.fillText("now", width, height - 3);
  for (const [colour, values] of lines) {
    pen.strokeStyle = style.getPropertyValue(`--${colour}`);
    pen.lineWidth = 2;
    pen.beginPath();
    values.forEach((value, index) => {
      const x = width - 2 - ((values.length - 1 - index) * (width - left - 2)) / (SECONDS - 1);
      pen.lineTo(x, bottom - (value / high) * (bottom - 8));
    });
    pen.stroke();
  }
}

function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((step) => step * power).find((step) => step >= value);
}
