// The scrolling signal: the lowest and highest value of each column of time, the newest on the right.

import { find, floats, fixed, niceAbove, say } from "./dom.js";
import { LETTERS } from "./channels.js";

const SECONDS = 8;
const EVERY_MS = 100;
const ROW_PX = 22;
const MOST_ROWS = 32;
const BASELINE_MS = 1000;

export function signal() {
  const canvas = find("signal");
  const context = canvas.getContext("2d");
  let montage = null;
  let faults = [];
  let store = null; // { width, lows, highs, number }: by channel and column modulo width
  let newest = -1; // number of the newest column
  let anchor = null; // { first, at, column }: which time a column has
  let marks = [];
  let zoom = 1;
  let page = 0;
  let held = null; // the newest column while the traces are held
  let onlyFaults = false;
  let baselines = new Map();
  let scales = new Map();
  let measuredAt = -Infinity;
  let dirty = true;

  const begin = (column) => {
    const width = Math.ceil(SECONDS / column);
    const size = width * montage.names.length;
    store = { width, column, lows: new Float32Array(size).fill(NaN), highs: new Float32Array(size).fill(NaN), number: new Float64Array(width).fill(-1) };
    newest = -1;
    baselines = new Map();
    measuredAt = -Infinity;
  };

  const rows = () => {
    const all = montage.names.map((_, index) => index);
    const wanted = onlyFaults ? all.filter((index) => faults[index]?.length) : all;
    const fit = Math.max(1, Math.min(MOST_ROWS, Math.floor(canvas.clientHeight / rowHeight())));
    const pages = Math.max(1, Math.ceil(wanted.length / fit));
    page = Math.min(page, pages - 1);
    const shown = wanted.slice(page * fit, (page + 1) * fit);
    find("previous").disabled = page === 0;
    find("next").disabled = page >= pages - 1;
    say(find("channels-shown"), wanted.length ? `${page * fit + 1}–${page * fit + shown.length} of ${wanted.length}` : "none");
    return shown;
  };

  const rowHeight = () => Math.max(ROW_PX, 1.25 * parseFloat(getComputedStyle(canvas).fontSize));

  const middle = (values) => {
    const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : 0;
  };

  /** Once a second: each trace's middle, and one scale for all channels of a unit. */
  const measure = (shown, last) => {
    const spreads = new Map();
    for (const channel of shown) {
      const [mids, spans] = [[], []];
      for (let k = Math.max(0, last - store.width + 1); k <= last; k += 1) {
        if (store.number[k % store.width] !== k) continue;
        const place = channel * store.width + (k % store.width);
        mids.push((store.lows[place] + store.highs[place]) / 2);
      }
      const centre = middle(mids);
      baselines.set(channel, centre);
      for (const value of mids) spans.push(Math.abs(value - centre));
      const unit = montage.units[channel];
      if (!spreads.has(unit)) spreads.set(unit, []);
      if (!faults[channel]?.length) spreads.get(unit).push(middle(spans));
    }
    scales = new Map([...spreads].map(([unit, spread]) => {
      const wanted = 4.5 * middle(spread); // a row holds about that much of a Gaussian signal
      return [unit, wanted > 0 ? niceAbove(wanted) : 1];
    }));
    say(find("signal-scale"), [...scales].map(([unit, scale]) => `a row is ${fixed(scale / zoom, scale / zoom < 10 ? 1 : 0)} ${unit}`).join(" · "));
  };

  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    return Object.fromEntries(["ink", "soft", "line", "accent", "warm", "wash"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  };

  const draw = () => {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (montage === null || store === null || newest < 0) return;
    const colour = colours();
    const shown = rows();
    const last = held ?? newest;
    const font = getComputedStyle(canvas);
    const size = parseFloat(font.fontSize);
    context.font = `${size}px ${font.fontFamily}`;
    const longest = Math.max(0, ...shown.map((channel) => context.measureText(montage.names[channel].slice(0, 10)).width));
    const left = Math.ceil(longest + 2.2 * size);
    const bottom = height - 1.6 * size;
    const top = 1.3 * size; // for the markers' numbers
    const row = (bottom - top) / Math.max(shown.length, 1);
    const across = (width - left) / store.width;
    const x = (k) => left + (k - last + store.width - 1 + 0.5) * across;
    if (performance.now() - measuredAt > BASELINE_MS) {
      measuredAt = performance.now();
      measure(shown, last);
    }

    // Seconds, and where nothing came.
    context.fillStyle = colour.soft;
    context.strokeStyle = colour.line;
    context.lineWidth = 1;
    context.textAlign = "center";
    for (let second = 0; second <= SECONDS; second += 1) {
      const at = Math.round(width - (second / store.column) * across) - 0.5;
      if (at < left) break;
      context.beginPath();
      context.moveTo(at, 0);
      context.lineTo(at, bottom);
      context.stroke();
      if (second % 2 === 0 && second > 0) context.fillText(`−${second} s`, at, height - 0.35 * size);
    }
    context.textAlign = "right";
    context.fillText("now", width - 2, height - 0.35 * size);
    context.textAlign = "left";
    const present = (k) => store.number[k % store.width] === k;
    const oldest = Math.max(0, last - store.width + 1);
    for (let k = oldest; k <= last; k += 1) {
      if (present(k)) continue;
      const from = k;
      while (k <= last && !present(k)) k += 1;
      if (newest < store.width && from === 0) continue;
      context.fillStyle = colour.wash;
      context.fillRect(x(from) - across / 2, 0, (k - from) * across, bottom);
      context.fillStyle = colour.warm;
      context.fillText("gap", x(from), bottom - 0.4 * size);
    }

    // Traces.
    shown.forEach((channel, index) => {
      const centre = top + (index + 0.5) * row;
      const bad = faults[channel]?.[0];
      const gain = (row * zoom) / (scales.get(montage.units[channel]) || 1);
      const most = (bad ? 0.9 : 2) * row; // what is no signal does not cover its neighbours
      const limit = (value) => Math.min(Math.max(centre - (value - baselines.get(channel)) * gain, centre - most), centre + most);
      context.strokeStyle = bad ? colour.warm : colour.ink;
      context.lineWidth = 1;
      context.setLineDash([]);
      context.beginPath();
      let broken = true;
      for (let k = oldest; k <= last; k += 1) {
        const place = channel * store.width + (k % store.width);
        const [low, high] = [store.lows[place], store.highs[place]];
        if (!present(k) || !Number.isFinite(low)) { broken = true; continue; }
        const at = x(k);
        if (broken) context.moveTo(at, limit(high)); else context.lineTo(at, limit(high));
        context.lineTo(at, limit(low));
        broken = false;
      }
      context.stroke();
      context.fillStyle = bad ? colour.warm : colour.soft;
      context.fillText(`${bad ? LETTERS[bad] ?? "?" : " "}`, 2, centre + 0.35 * size);
      context.fillText(montage.names[channel].slice(0, 10), 1.5 * size, centre + 0.35 * size);
    });

    // Markers.
    context.strokeStyle = colour.accent;
    context.fillStyle = colour.accent;
    context.setLineDash([4, 3]);
    let free = -Infinity;
    for (const mark of anchor === null ? [] : marks) {
      const k = anchor.first + (mark.at - anchor.at) / anchor.column;
      if (k < last - store.width + 1 || k > last) continue;
      const at = x(k);
      context.beginPath();
      context.moveTo(at, 0);
      context.lineTo(at, bottom);
      context.stroke();
      if (at < free) continue;
      const text = `#${mark.ordinal}`;
      context.fillText(text, at + 3, size);
      free = at + context.measureText(text).width + 8;
    }
    context.setLineDash([]);
  };

  let queued = false;
  const redraw = () => {
    if (queued) return;
    queued = true;
    setTimeout(() => { queued = false; requestAnimationFrame(draw); }, EVERY_MS);
  };
  new ResizeObserver(redraw).observe(canvas);

  return {
    redraw,

    montage(message) {
      montage = message;
      faults = [];
      store = null;
      redraw();
    },

    signal(message) {
      if (montage === null) return;
      if (store === null || store.column !== message.column || message.first < newest - store.width) begin(message.column);
      const [lows, highs] = [floats(message.lows), floats(message.highs)];
      const count = lows.length / montage.names.length;
      if (!Number.isInteger(count)) return; // of a montage that is no more
      for (let j = 0; j < count; j += 1) {
        const k = message.first + j;
        store.number[k % store.width] = k;
        for (let channel = 0; channel < montage.names.length; channel += 1) {
          const place = channel * store.width + (k % store.width);
          store.lows[place] = lows[channel * count + j];
          store.highs[place] = highs[channel * count + j];
        }
        newest = Math.max(newest, k);
      }
      anchor = message;
      if (held === null) redraw();
    },

    quality(message) {
      faults = message.faults;
      redraw();
    },

    marker(message) {
      marks = [...marks.filter((mark) => mark.ordinal !== message.ordinal), message].slice(-64);
    },

    hold() {
      held = held === null ? newest : null;
      find("pause").setAttribute("aria-pressed", String(held !== null));
      say(find("pause"), held === null ? "Hold" : "Go on");
      redraw();
    },

    zoomBy(factor) {
      zoom = Math.min(Math.max(zoom * factor, 1 / 64), 64);
      measuredAt = -Infinity;
      redraw();
    },

    turn(pages) { page = Math.max(0, page + pages); measuredAt = -Infinity; redraw(); },

    toggleFaults() {
      onlyFaults = !onlyFaults;
      page = 0;
      measuredAt = -Infinity;
      find("only-faults").setAttribute("aria-pressed", String(onlyFaults));
      redraw();
    },
  };
}
