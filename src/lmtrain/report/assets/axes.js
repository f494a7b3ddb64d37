// Where ticks stand and how numbers are written.

function niceStep(span, count) {
  const raw = span / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const part = raw / power;
  return (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10) * power;
}

function linearTicks(low, high, count) {
  if (!(high - low > 1e-12 * Math.max(Math.abs(low), Math.abs(high)))) return [low];
  const step = niceStep(high - low, count);
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) ticks.push(n * step);
  return ticks;
}

// Powers of ten where there are enough of them, else 1, 2 and 5 of each; on less than that, even steps.
function logTicks(low, high, count) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const inside = (tick) => tick >= low * 0.9999 && tick <= high * 1.0001;
  for (const parts of [[1], [1, 2, 5]]) {
    const every = Math.max(1, Math.ceil((last - first) / Math.max(count, 1)));
    const ticks = [];
    for (let power = first; power <= last; power += every) for (const part of parts) ticks.push(part * 10 ** power);
    const seen = ticks.filter(inside);
    if (seen.length >= 3) return seen;
  }
  return linearTicks(low, high, count);
}

function clockUnit(seconds) {
  if (seconds < 180) return [1, "s"];
  if (seconds < 3 * 3600) return [60, "min"];
  if (seconds < 3 * 86400) return [3600, "h"];
  return [86400, "d"];
}

function digits(value, figures) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3) return value.toExponential(Math.max(figures - 1, 0)).replace(/\.?0+e/, "e").replace("e-0", "e-");
  const text = size >= 10 ** figures ? Math.round(value).toLocaleString("en") : value.toPrecision(figures);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

function withPrefix(value, unit, figures) {
  const size = Math.abs(value);
  const found = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([scale]) => size >= scale * 0.9995);
  const text = found ? `${digits(value / found[0], figures)} ${found[1]}${unit}` : `${digits(value, figures)} ${unit}`;
  return text.trim();
}

// A value of a plot. `figures` are those that count.
function written(value, form, figures) {
  if (value === null || Number.isNaN(value)) return "–";
  if (form === "percent") return `${digits(value * 100, figures)} %`;
  if (form === "bytes") return withPrefix(value, "B", figures);
  if (form === "rate" || Math.abs(value) >= 1e5) return withPrefix(value, "", figures);
  return digits(value, figures);
}

// A place on the horizontal axis.
function place(value, axis, figures, unit) {
  if (axis === "seconds") return `${digits(value / unit[0], figures)} ${unit[1]}`;
  if (axis === "tokens" || figures < 7) return withPrefix(value, "", figures);
  return Math.round(value).toLocaleString("en");
}

// So many figures that neighbouring ticks differ.
function figuresFor(ticks, scale) {
  if (ticks.length < 2) return 4;
  const step = Math.min(...ticks.slice(1).map((tick, n) => Math.abs(tick - ticks[n])));
  const most = Math.max(...ticks.map(Math.abs));
  return Math.min(7, Math.max(2, Math.ceil(Math.log10((most / step) * (scale || 1)) + 1e-9) + 1));
}
