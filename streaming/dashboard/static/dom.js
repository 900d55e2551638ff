// Small helpers. Text that came from a stream is only ever set as text, never as markup.

export const find = (id) => document.getElementById(id);

export function make(tag, className = "", text = null) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== null) element.textContent = text;
  return element;
}

export function drawn(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Sets a text only where it changes, so that a screen reader is not told the same twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export function fixed(value, digits = 0) {
  return isNumber(value) ? value.toFixed(digits).replace("-", "−") : "–";
}

export function percent(share) {
  if (!isNumber(share)) return "–";
  const value = 100 * share;
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
}

/** Seconds in the unit that reads best: "0.31 ms", "4.2 ms", "42 ms", "1.31 s". */
export function duration(seconds) {
  if (!isNumber(seconds)) return "–";
  const size = Math.abs(seconds);
  if (size < 0.000995) return `${fixed(1000 * seconds, 2)} ms`;
  if (size < 0.00995) return `${fixed(1000 * seconds, 1)} ms`;
  if (size < 0.9995) return `${fixed(1000 * seconds, 0)} ms`;
  return `${fixed(seconds, size < 9.995 ? 2 : 1)} s`;
}

/** Seconds since the start as "1:04:09" or "4:09". */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [value, unit] = [count, 0];
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${unit && value < 100 ? value.toFixed(1) : value.toFixed(0)} ${units[unit]}`;
}

/** float32 numbers, little-endian, in base64. */
export function floats(text) {
  const raw = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const view = new DataView(raw.buffer);
  return Float32Array.from({ length: raw.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

/** The smallest of 1, 2, 5 times a power of ten that is not below a value. */
export function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.9999);
}
