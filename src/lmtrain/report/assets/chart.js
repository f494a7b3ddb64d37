// One plot: curves in an SVG, with a cross-hair, zoom by dragging, and a legend that switches curves off.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 232, LEFT = 56, RIGHT = 20, TOP = 10, BOTTOM = 28;

function make(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "onclick") node.addEventListener("click", value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function draw(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// How a line looks, for the legend and beside its value.
function swatch(line) {
  const node = draw("svg", { class: "swatch", viewBox: "0 0 18 8", "aria-hidden": "true" });
  node.append(draw("path", { d: "M0 4h18", "stroke-dasharray": line.dash || "none" }));
  if (line.dots) node.append(draw("circle", { cx: 9, cy: 4, r: 3.5 }));
  node.style.color = `var(--run-${line.colour % PALETTE_SIZE})`;
  return node;
}

// The same moving average as series.py: a value `span` away, on either side, weighs 1/e of the one here.
function smoothed(x, y, span) {
  const above = [...y], below = y.map(() => 1);
  for (const order of [y.keys(), [...y.keys()].reverse()]) {
    let sum = 0, weight = 0, before = null;
    for (const n of order) {
      const fade = before === null ? 0 : Math.exp(-Math.abs(x[n] - before) / span);
      above[n] += sum * fade;
      below[n] += weight * fade;
      sum = sum * fade + y[n];
      weight = weight * fade + 1;
      before = x[n];
    }
  }
  return above.map((sum, n) => sum / below[n]);
}

function nearest(x, wanted) {
  let low = 0, high = x.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] < wanted) low = middle + 1; else high = middle;
  }
  return low > 0 && wanted - x[low - 1] < x[low] - wanted ? low - 1 : low;
}

class Chart {
  constructor(view) {
    this.view = view;
    this.hidden = new Set();
    this.log = null;
    this.serial = Chart.count = (Chart.count || 0) + 1;
    this.title = make("h3");
    this.unit = make("span", { class: "unit" });
    this.logButton = make("button", { type: "button", title: "logarithmic axis", onclick: () => { this.log = !this.log; this.render(); } }, "log");
    const saver = (kind, save) => make("button", { type: "button", title: `save this plot as ${kind}`, "data-save": kind, onclick: () => save(this) }, kind);
    this.tools = make("div", { class: "tools" }, this.logButton, saver("PNG", savePng), saver("SVG", saveSvg), saver("CSV", saveCsv));
    this.legend = make("div", { class: "legend" });
    this.svg = draw("svg", { role: "img", tabindex: "0" });
    this.tip = make("div", { class: "tip", hidden: true });
    this.node = make("figure", { class: "plot" }, make("figcaption", {}, this.title, this.unit, this.tools), this.legend,
      make("div", { class: "box" }, this.svg, this.tip));
    this.listen();
  }

  show(plot, runs) {
    this.plot = plot;
    this.runs = runs;
    if (this.log === null) this.log = plot.log;
    this.node.id = `plot-${plot.id}`;
    this.title.textContent = plot.title;
    this.unit.textContent = plot.unit;
    this.key();
    this.render();
  }

  // ---- numbers ---------------------------------------------------------------------------------

  curves() {
    const { axis } = this.view;
    const turn = this.plot.transform === "exp" ? (v) => (v === null ? null : Math.exp(v)) : (v) => v;
    return this.plot.lines.map((line) => {
      const table = this.runs[line.run].tables[line.table];
      const curve = table.curves[line.curve];
      const kept = [];
      table[axis].forEach((x, n) => { if (x !== null && curve.mean[n] !== null) kept.push(n); });
      const at = (values) => kept.map((n) => values[n]);
      const x = at(table[axis]);
      const smooth = this.plot.smooth && !line.dots && this.view.smoothing > 0 && x.length > 2;
      const mean = at(curve.mean);
      const span = this.view.smoothing * (x[x.length - 1] - x[0]);
      return {
        line, x, y: mean.map(turn),
        smooth: smooth ? smoothed(x, mean, span).map(turn) : null,
        low: curve.low ? at(curve.low).map(turn) : null, high: curve.high ? at(curve.high).map(turn) : null,
        step: at(table.step), first: table.first ? at(table.first) : null, last: table.last ? at(table.last) : null,
        shown: !this.hidden.has(line.label),
      };
    }).filter((curve) => curve.x.length > 0);
  }

  scales() {
    const shown = this.drawn.filter((curve) => curve.shown);
    const [left, right] = this.view.span();
    const inside = [];
    for (const curve of shown) {
      curve.x.forEach((x, n) => {
        if (x < left || x > right) return;
        for (const value of [curve.y[n], curve.smooth ? curve.smooth[n] : null]) {
          if (value !== null && Number.isFinite(value) && (!this.log || value > 0)) inside.push(value);
        }
      });
    }
    // Of the extremes that a stretch hides all but the outermost hundredth: a band may leave the plot, a curve may not.
    for (const [side, share] of [["low", 0.01], ["high", 0.99]]) {
      for (const curve of shown) {
        const values = (curve[side] || []).filter((value, n) => curve.x[n] >= left && curve.x[n] <= right && (!this.log || value > 0));
        if (values.length) inside.push(values.sort((a, b) => a - b)[Math.floor(share * (values.length - 1))]);
      }
    }
    let low = Infinity, high = -Infinity;
    for (const value of inside) { if (value < low) low = value; if (value > high) high = value; }
    if (!inside.length) [low, high] = [this.log ? 0.1 : 0, 1];
    if (this.log) {
      const pad = Math.max((high / low) ** 0.05, 1.02);
      [low, high] = [low / pad, high * pad];
    } else {
      const flat = Math.abs(high) * 0.05 || 1;
      // A constant has no ticks of its own, be it but for rounding; of memory and speed a hundredth is no change either.
      const isFlat = high - low <= (this.plot.form === "number" ? 1e-9 : 0.01) * Math.abs(high);
      const pad = isFlat ? flat : (high - low) * 0.06;
      const positive = low >= 0;
      [low, high] = [low - pad, high + pad];
      if (positive && low < 0) low = 0;
      if (positive && low < 0.35 * high && this.plot.form !== "number") low = 0;
    }
    const width = this.width, bottom = HEIGHT - BOTTOM;
    const toX = (x) => LEFT + ((x - left) / (right - left || 1)) * (width - LEFT - RIGHT);
    const toY = this.log
      ? (y) => bottom - (Math.log(y / low) / Math.log(high / low)) * (bottom - TOP)
      : (y) => bottom - ((y - low) / (high - low)) * (bottom - TOP);
    const fromX = (pixel) => left + ((pixel - LEFT) / (width - LEFT - RIGHT)) * (right - left);
    return { left, right, low, high, toX, toY, fromX };
  }

  // ---- drawing ---------------------------------------------------------------------------------

  render() {
    if (!this.plot) return;
    this.width = Math.max(260, Math.round(this.node.clientWidth - 34) || 480);
    this.drawn = this.curves();
    this.scale = this.scales();
    this.logButton.setAttribute("aria-pressed", String(Boolean(this.log)));
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.svg.setAttribute("aria-label", this.spoken());
    this.svg.replaceChildren();
    this.grid();
    const clip = draw("clipPath", { id: `clip-${this.serial}` });
    // Wider than the axes by a dot, which may stand at their very end.
    clip.append(draw("rect", { x: LEFT - 4, y: TOP - 4, width: this.width - LEFT - RIGHT + 8, height: HEIGHT - BOTTOM - TOP + 8 }));
    const group = draw("g", { "clip-path": `url(#clip-${this.serial})` });
    this.marks(group);
    for (const curve of this.drawn) if (curve.shown) this.curve(group, curve);
    this.cursor = draw("g", { class: "cursor" });
    this.svg.append(clip, group, this.cursor);
    if (this.at !== undefined) this.point(this.at, !this.tip.hidden);
  }

  grid() {
    const { left, right, low, high, toX, toY } = this.scale;
    const axis = this.view.axis, bottom = HEIGHT - BOTTOM;
    const rows = this.log ? logTicks(low, high, 5) : linearTicks(low, high, 5);
    const figures = this.log && rows.length && rows[rows.length - 1] / rows[0] > 8 ? 2 : figuresFor(rows);
    for (const tick of rows) {
      const y = toY(tick);
      this.svg.append(draw("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }),
        draw("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, written(tick, this.plot.form, figures)));
    }
    const unit = clockUnit(right);
    const scale = axis === "seconds" ? unit[0] : 1;
    const columns = linearTicks(left / scale, right / scale, this.width < 420 ? 4 : 6).map((tick) => tick * scale);
    const count = figuresFor(columns);
    for (const tick of columns) {
      this.svg.append(draw("line", { class: "axis", x1: toX(tick), x2: toX(tick), y1: bottom, y2: bottom + 4 }),
        draw("text", { x: toX(tick), y: bottom + 18, "text-anchor": "middle" }, place(tick, axis, Math.min(count, 6), unit)));
    }
    this.svg.append(draw("line", { class: "axis", x1: LEFT, x2: this.width - RIGHT, y1: bottom, y2: bottom }));
  }

  // Where a run was gone on with: only on the axis of steps, which is how marks are told.
  marks(group) {
    if (this.view.axis !== "step") return;
    for (const run of this.runs) for (const step of run.marks) {
      const x = this.scale.toX(step);
      const line = draw("line", { class: "mark", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM });
      line.append(draw("title", {}, `goes on from step ${step}`));
      group.append(line);
    }
  }

  curve(group, curve) {
    const { toX, toY } = this.scale;
    const colour = `var(--run-${curve.line.colour % PALETTE_SIZE})`;
    const fits = (value) => value !== null && Number.isFinite(value) && (!this.log || value > 0);
    const point = (n, values) => `${toX(curve.x[n]).toFixed(1)},${Math.max(-1e4, Math.min(1e4, toY(values[n]))).toFixed(1)}`;
    const path = (values) => {
      let pen = "M", text = "";
      curve.x.forEach((_, n) => {
        if (fits(values[n])) { text += pen + point(n, values); pen = "L"; } else pen = "M";
      });
      return text;
    };
    if (curve.low && curve.line.dots === false) {
      const there = curve.x.map((_, n) => n).filter((n) => fits(curve.low[n]) && fits(curve.high[n]));
      const edge = [...there.map((n) => point(n, curve.high)), ...there.reverse().map((n) => point(n, curve.low))];
      if (edge.length) group.append(this.coloured(draw("path", { class: "band", d: `M${edge.join("L")}Z` }), "fill", colour));
    }
    if (curve.smooth) group.append(this.coloured(draw("path", { class: "line raw", d: path(curve.y) }), "stroke", colour));
    const line = draw("path", { class: "line", d: path(curve.smooth || curve.y) });
    if (curve.line.dash) line.setAttribute("stroke-dasharray", curve.line.dash);
    group.append(this.coloured(line, "stroke", colour));
    if ((curve.line.dots && curve.x.length <= 120) || curve.x.length === 1) {
      curve.x.forEach((x, n) => {
        if (fits(curve.y[n])) group.append(this.coloured(draw("circle", { class: "dot", cx: toX(x), cy: toY(curve.y[n]), r: 3 }), "fill", colour));
      });
    }
  }

  coloured(node, property, colour) {
    node.style.setProperty(property, colour);
    return node;
  }

  // The legend. Its buttons stay while their lines do: one of them may have the focus.
  key() {
    const { lines } = this.plot, text = JSON.stringify(lines);
    if (this.keyed === text) return;
    this.keyed = text;
    this.legend.hidden = lines.length === 1;
    this.legend.replaceChildren(...lines.map((line) => {
      const pressed = () => String(!this.hidden.has(line.label));
      const button = make("button", { type: "button", "aria-pressed": pressed(), onclick: () => {
        if (!this.hidden.delete(line.label)) this.hidden.add(line.label);
        button.setAttribute("aria-pressed", pressed());
        this.render();
      } }, swatch(line), line.label);
      return button;
    }));
  }

  spoken() {
    const last = this.drawn.filter((curve) => curve.shown).map((curve) => {
      const value = curve.y[curve.y.length - 1];
      return `${curve.line.label} ${written(value, this.plot.form, 4)}`;
    });
    return `${this.plot.title} by ${this.view.axis}. Last values: ${last.join(", ")}`;
  }

  // ---- pointing --------------------------------------------------------------------------------

  listen() {
    let start = null;
    const where = (event) => {
      const box = this.svg.getBoundingClientRect();
      const pixel = ((event.clientX - box.left) / box.width) * this.width;
      return Math.min(this.width - RIGHT, Math.max(LEFT, pixel));
    };
    this.svg.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse" || event.button !== 0) return;
      start = where(event);
      this.svg.setPointerCapture(event.pointerId);
    });
    this.svg.addEventListener("pointermove", (event) => {
      const pixel = where(event);
      this.view.point(this.scale.fromX(pixel), this);
      if (start !== null && Math.abs(pixel - start) > 4) {
        this.cursor.append(draw("rect", { class: "brush", x: Math.min(start, pixel), y: TOP, width: Math.abs(pixel - start), height: HEIGHT - BOTTOM - TOP }));
      }
    });
    this.svg.addEventListener("pointerup", (event) => {
      const pixel = where(event);
      if (start !== null && Math.abs(pixel - start) > 8) {
        const ends = [start, pixel].map(this.scale.fromX).sort((a, b) => a - b);
        this.view.zoom(ends);
      }
      start = null;
    });
    this.svg.addEventListener("pointercancel", () => { start = null; });
    this.svg.addEventListener("pointerleave", () => this.view.point(null, this));
    this.svg.addEventListener("dblclick", () => this.view.zoom(null));
    this.svg.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const curve = this.drawn.find((one) => one.shown);
      if (event.key === "Escape") this.view.zoom(null);
      if (!direction || !curve) return;
      event.preventDefault();
      const now = this.at === undefined ? curve.x.length - 1 : nearest(curve.x, this.at) + direction;
      this.view.point(curve.x[Math.max(0, Math.min(curve.x.length - 1, now))], this);
    });
    this.svg.addEventListener("blur", () => this.view.point(null, this));
  }

  // The cross-hair at a place of the horizontal axis, or none; the values beside it where the pointer is.
  point(x, tells) {
    this.cursor.replaceChildren();
    this.tip.hidden = true;
    if (x === null) { this.at = undefined; return; }
    this.at = x;
    const { toX, toY, left, right } = this.scale;
    const lines = [];
    let nearestX = null, about = null;
    for (const curve of this.drawn) {
      if (!curve.shown) continue;
      const n = nearest(curve.x, x);
      if (curve.x[n] < left || curve.x[n] > right) continue;
      if (nearestX === null || Math.abs(curve.x[n] - x) < Math.abs(nearestX - x)) [nearestX, about] = [curve.x[n], [curve, n]];
      const y = curve.smooth ? curve.smooth[n] : curve.y[n];
      if (!this.log || y > 0) {
        this.cursor.append(this.coloured(draw("circle", { class: "dot", cx: toX(curve.x[n]), cy: toY(y), r: 3.5 }), "fill", `var(--run-${curve.line.colour % PALETTE_SIZE})`));
      }
      lines.push([curve, n]);
    }
    if (nearestX === null) return;
    this.cursor.prepend(draw("line", { class: "cross", x1: toX(nearestX), x2: toX(nearestX), y1: TOP, y2: HEIGHT - BOTTOM }));
    if (tells) this.tell(lines, about, toX(nearestX));
  }

  tell(lines, [curve, n], pixel) {
    const axis = this.view.axis;
    const steps = curve.first && curve.first[n] !== curve.last[n]
      ? `steps ${curve.first[n].toLocaleString("en")}–${curve.last[n].toLocaleString("en")}`
      : `step ${Math.round(curve.step[n]).toLocaleString("en")}`;
    const head = axis === "step" ? steps : `${place(curve.x[n], axis, 4, clockUnit(curve.x[n]))}${axis === "tokens" ? " tokens" : ""} · ${steps}`;
    const rows = lines.map(([one, at]) => {
      const value = written(one.smooth ? one.smooth[at] : one.y[at], this.plot.form, 5);
      const form = (v) => written(v, this.plot.form, 4);
      const spread = one.low && one.low[at] !== one.high[at] ? `${form(one.low[at])} to ${form(one.high[at])}` : one.smooth ? form(one.y[at]) : "";
      return make("tr", {}, make("td", {}, swatch(one.line), ` ${one.line.label}`), make("td", {}, value), make("td", { class: "small" }, spread));
    });
    this.tip.replaceChildren(head, make("table", {}, ...rows));
    this.tip.hidden = false;
    const share = pixel / this.width;
    const box = this.svg.clientWidth;
    this.tip.style.left = share < 0.5 ? `${share * box + 12}px` : "auto";
    this.tip.style.right = share < 0.5 ? "auto" : `${(1 - share) * box + 12}px`;
  }
}
