// A plot as a file: the SVG on its own, the same as pixels, or its numbers.

const COPIED = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "font-size", "font-family"];
const HEAD = 56, ROW = 18;  // what stands above the plot with one row of its legend; a row more

// Where each entry of the legend stands, and how many rows that makes.
function legendRows(chart) {
  const shown = chart.drawn.filter((one) => one.shown && chart.plot.lines.length > 1);
  let x = 12, row = 0;
  const entries = shown.map((curve) => {
    const wide = 40 + curve.line.label.length * 6.6;
    if (x > 12 && x + wide > chart.width) { x = 12; row += 1; }
    const entry = { curve, x, y: 38 + row * ROW };
    x += wide;
    return entry;
  });
  return { entries, height: HEIGHT + HEAD + row * ROW };
}

function standalone(chart) {
  const copy = chart.svg.cloneNode(true);
  copy.querySelector(".cursor").remove();
  const originals = [...chart.svg.querySelectorAll("*")].filter((node) => !node.closest(".cursor"));
  [...copy.querySelectorAll("*")].forEach((node, n) => {
    const style = getComputedStyle(originals[n]);
    for (const name of COPIED) if (style.getPropertyValue(name)) node.setAttribute(name, style.getPropertyValue(name));
    node.removeAttribute("style");
    node.removeAttribute("class");
  });
  const style = getComputedStyle(chart.node), family = style.fontFamily;
  const soft = getComputedStyle(chart.unit).color;
  const { entries, height } = legendRows(chart);
  const out = draw("svg", { xmlns: SVG, viewBox: `0 0 ${chart.width} ${height}`, width: chart.width, height });
  out.append(draw("rect", { width: "100%", height: "100%", fill: style.backgroundColor }),
    draw("text", { x: 12, y: 22, "font-size": 15, "font-weight": 650, "font-family": family, fill: style.color }, chart.plot.title),
    draw("text", { x: chart.width - RIGHT, y: 22, "font-size": 12, "font-family": family, fill: soft, "text-anchor": "end" }, chart.plot.unit));
  for (const { curve, x, y } of entries) {
    const mark = { d: `M${x} ${y + 1.5}h18`, stroke: resolved(curve.line.colour), "stroke-width": 3 };
    out.append(draw("path", curve.line.dash ? { ...mark, "stroke-dasharray": curve.line.dash } : mark),
      draw("text", { x: x + 24, y: y + 5, "font-size": 12, "font-family": family, fill: soft }, curve.line.label));
  }
  const body = draw("g", { transform: `translate(0 ${height - HEIGHT})` });
  body.append(...copy.childNodes);
  out.append(body);
  return new XMLSerializer().serializeToString(out);
}

// A colour of the page as the browser has worked it out for light or dark.
function resolved(number) {
  const probe = make("span", { hidden: true });
  probe.style.color = `var(--run-${number % PALETTE_SIZE})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function download(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function fileName(chart, ending) {
  return `${document.title.replace(/[^\w.-]+/g, "-").slice(0, 60)}-${chart.plot.id}.${ending}`;
}

function saveSvg(chart) {
  download(fileName(chart, "svg"), new Blob([standalone(chart)], { type: "image/svg+xml" }));
}

function savePng(chart) {
  const image = new Image(), address = URL.createObjectURL(new Blob([standalone(chart)], { type: "image/svg+xml" }));
  image.onload = () => {
    const canvas = make("canvas", { width: chart.width * 2, height: legendRows(chart).height * 2 });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => download(fileName(chart, "png"), blob), "image/png");
    URL.revokeObjectURL(address);
  };
  image.src = address;
}

function csvOf(chart) {
  const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
  const rows = ["run,curve,step,tokens,seconds,value,low,high"];
  const turn = chart.plot.transform === "exp" ? Math.exp : (v) => v;
  for (const line of chart.plot.lines) {
    const run = chart.runs[line.run], table = run.tables[line.table], curve = table.curves[line.curve];
    curve.mean.forEach((value, n) => {
      if (value === null) return;
      const low = curve.low ? turn(curve.low[n]) : "", high = curve.high ? turn(curve.high[n]) : "";
      const cells = [table.step[n], table.tokens[n] ?? "", table.seconds[n] ?? "", turn(value), low, high];
      rows.push([quoted(run.name), quoted(line.label), ...cells].join(","));
    });
  }
  return rows.join("\n") + "\n";
}

function saveCsv(chart) {
  download(fileName(chart, "csv"), new Blob([csvOf(chart)], { type: "text/csv" }));
}
