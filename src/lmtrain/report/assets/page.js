// The page: what all plots share, the sliders of the samples, the theme, and new numbers while a run goes on.

const SMOOTHINGS = [0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05];
const byId = (id) => document.getElementById(id);

const view = {
  axis: "step", smoothing: 0, share: 1, fixed: null, charts: new Map(), runs: [],
  // The part of the horizontal axis that is shown: all of it, its last part, or what was dragged over.
  span() {
    if (this.fixed) return this.fixed;
    let low = Infinity, high = -Infinity;
    for (const run of this.runs) for (const table of Object.values(run.tables)) {
      const places = table[this.axis].filter((x) => x !== null);
      if (places.length) { low = Math.min(low, places[0]); high = Math.max(high, places[places.length - 1]); }
    }
    if (!(high > low)) return Number.isFinite(low) ? [low - 1, low + 1] : [0, 1];
    if (low < 0.05 * high) low = 0;
    return [high - (high - low) * this.share, high];
  },
  zoom(ends) {
    this.fixed = ends;
    byId("whole").hidden = !ends;
    this.render();
  },
  point(x, source) { for (const chart of this.charts.values()) chart.point(x, chart === source); },
  render() { for (const chart of this.charts.values()) chart.render(); },
};

function showDrawing(drawing) {
  view.runs = drawing.runs;
  const box = byId("plots");
  for (const plot of drawing.plots) {
    if (!view.charts.has(plot.id)) view.charts.set(plot.id, new Chart(view));
    const { node } = view.charts.get(plot.id);
    node.classList.toggle("wide", plot.id === "loss");
  }
  const nodes = drawing.plots.map((plot) => view.charts.get(plot.id).node);
  if (nodes.some((node, n) => box.children[n] !== node)) box.replaceChildren(...nodes);
  for (const plot of drawing.plots) view.charts.get(plot.id).show(plot, drawing.runs);
  byId("no-curves").hidden = drawing.plots.length > 0;
  byId("controls").hidden = drawing.plots.length === 0;
  const known = (axis) => drawing.runs.some((run) => Object.values(run.tables).some((table) => table[axis].some((x) => x !== null)));
  for (const option of byId("axis").options) option.disabled = !known(option.value);
}

function wireControls(drawing) {
  view.smoothing = drawing.smoothing;
  const slider = byId("smoothing"), told = byId("smoothing-value");
  const tell = () => { told.value = view.smoothing ? `${+(view.smoothing * 100).toFixed(1)} %` : "off"; };
  slider.value = Math.max(0, SMOOTHINGS.indexOf(drawing.smoothing));
  slider.addEventListener("input", () => { view.smoothing = SMOOTHINGS[slider.value]; tell(); view.render(); });
  tell();
  byId("axis").addEventListener("change", (event) => { view.axis = event.target.value; view.zoom(null); });
  byId("range").addEventListener("change", (event) => { view.share = Number(event.target.value); view.zoom(null); });
  byId("whole").addEventListener("click", () => view.zoom(null));
  let width = window.innerWidth;
  window.addEventListener("resize", () => { if (window.innerWidth !== width) { width = window.innerWidth; view.render(); } });
  window.addEventListener("beforeprint", () => view.render());
}

// ---- what is not a plot ---------------------------------------------------------------------------

const chosenStep = new Map(), shownText = new Map();

function wireSections() {
  for (const section of document.querySelectorAll("[data-of]")) {
    section.hidden = byId(section.dataset.of).childElementCount === 0;
  }
  for (const button of document.querySelectorAll("[data-copies]")) {
    button.onclick = async () => {
      const text = byId(button.dataset.copies).textContent;
      try { await navigator.clipboard.writeText(text); } catch { copyOldWay(text); }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    };
  }
  for (const box of document.querySelectorAll(".samples")) wireSamples(box);
}

function copyOldWay(text) {
  const area = make("textarea", {});
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

// One step at a time, the last first; the others are a slider away.
function wireSamples(box) {
  const blocks = [...box.querySelectorAll(".sampled")];
  if (blocks.length < 2) return;
  const key = box.dataset.key;
  const slider = make("input", { type: "range", min: 0, max: blocks.length - 1, step: 1, "aria-label": "step of the samples" });
  const told = make("output", {});
  const show = () => {
    blocks.forEach((block, n) => { block.hidden = n !== Number(slider.value); });
    told.value = `step ${Number(blocks[slider.value].dataset.step).toLocaleString("en")}`;
  };
  slider.addEventListener("input", () => {
    show();
    if (Number(slider.value) === blocks.length - 1) chosenStep.delete(key); else chosenStep.set(key, blocks[slider.value].dataset.step);
  });
  const before = blocks.findIndex((block) => block.dataset.step === chosenStep.get(key));
  slider.value = before >= 0 ? before : blocks.length - 1;
  for (const block of blocks) block.querySelector("h4").hidden = true;
  blocks[0].before(make("div", { class: "picker" }, slider, told));
  show();
}

function showSections(sections) {
  for (const [id, text] of Object.entries(sections)) {
    const box = byId(id);
    if (shownText.get(id) === text) continue;
    const open = new Set([...box.querySelectorAll("details[open]")].map((details) => details.dataset.key));
    box.innerHTML = text;  // built from escaped text by the program that serves this page
    shownText.set(id, text);
    for (const details of box.querySelectorAll("details")) details.open = open.has(details.dataset.key);
  }
  wireSections();
}

function wireTheme() {
  const root = document.documentElement;
  let stored = null;
  try { stored = localStorage.getItem("lmtrain-theme"); } catch { /* no storage for files in some browsers */ }
  if (stored === "light" || stored === "dark") root.dataset.theme = stored;
  byId("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("lmtrain-theme", root.dataset.theme); } catch { /* then for this visit only */ }
  });
}

// ---- while a run goes on --------------------------------------------------------------------------

const BUSY = 2000, QUIET = 10000;  // milliseconds between two questions

async function follow(stamp) {
  const light = byId("live");
  const tell = (on, text) => {
    light.className = `live ${on ? "on" : "off"}`;
    if (light.textContent !== text) light.textContent = text;  // which is read aloud
  };
  let working = true, wait = BUSY;
  tell(true, "live");
  for (;;) {
    await new Promise((done) => setTimeout(done, wait));
    let status = 0, text = "";
    try {
      const answer = await fetch(`data.json?since=${encodeURIComponent(stamp)}`, { cache: "no-store" });
      text = await answer.text();
      status = answer.status;
    } catch { /* nobody answers */ }
    if (status === 200) {
      const news = JSON.parse(text);
      stamp = news.stamp;
      working = news.working;
      document.title = byId("title").textContent = news.title;
      showDrawing(news.drawing);
      showSections(news.sections);
    }
    const on = status === 200 || status === 204;
    if (on) tell(true, working ? "live" : "live, nothing is at work");
    else tell(false, status ? `not live: ${text.trim()}` : "not live any more: lmtrain report --live has ended");
    wait = on && working ? BUSY : QUIET;
  }
}

const content = JSON.parse(byId("data").textContent);
wireTheme();
wireControls(content.drawing);
showDrawing(content.drawing);
wireSections();
if (content.stamp) follow(content.stamp);
document.documentElement.dataset.drawn = "yes";
