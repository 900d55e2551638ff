// The map of the head, and the list of channels with a fault. A letter stands beside every colour.

import { drawn, find, make, say } from "./dom.js";

export const LETTERS = { missing: "M", flat: "F", railed: "R", hum: "H", noisy: "N" };
const MEANINGS = {
  missing: "no numbers", flat: "flat", railed: "railed", hum: "mains hum", noisy: "noisy",
};
const MOST_NAMES = 6;

export function channels() {
  let montage = null;
  let dots = [];

  const outline = () => [
    drawn("path", { d: "M44 12 L50 5 L56 12", class: "skull" }),
    drawn("path", { d: "M9 44 q-5 7 0 15 M91 44 q5 7 0 15", class: "skull" }),
    drawn("circle", { cx: 50, cy: 52, r: 41, class: "skull" }),
  ];

  /** In rows, where nobody knows where the sensors are. */
  const gridPlace = (index, count) => {
    const across = Math.ceil(Math.sqrt(count));
    const step = 84 / across;
    return [8 + step * (0.5 + (index % across)), 8 + step * (0.5 + Math.floor(index / across))];
  };

  const draw = () => {
    const known = montage.places.some(Boolean);
    const size = Math.min(4.2, Math.max(1.3, 22 / Math.sqrt(montage.names.length)));
    dots = montage.names.map((name, index) => {
      const place = montage.places[index];
      const [x, y] = !known ? gridPlace(index, montage.names.length)
        : place ? [50 + 38.5 * place[0], 52 - 38.5 * place[1]] : [null, null];
      if (x === null) return null;
      const group = drawn("g", { transform: `translate(${x.toFixed(2)} ${y.toFixed(2)})` });
      const circle = drawn("circle", { r: size });
      const letter = drawn("text", { "font-size": (2.1 * size).toFixed(2), dy: ".36em" });
      const title = drawn("title", {});
      group.append(circle, letter, title);
      return { group, circle, letter, title, size };
    });
    find("map").replaceChildren(...(known ? outline() : []), ...dots.filter(Boolean).map((dot) => dot.group));
  };

  return {
    montage(message) {
      montage = message;
      draw();
      say(find("map-good"), `${message.names.length} channels`);
      find("faults").replaceChildren();
    },

    quality(message) {
      if (montage === null || message.faults.length !== montage.names.length) return;
      const byFault = new Map(Object.keys(LETTERS).map((fault) => [fault, []]));
      message.faults.forEach((faults, index) => {
        const worst = faults[0] ?? "good";
        if (faults.length) byFault.get(worst)?.push(montage.names[index]);
        const dot = dots[index];
        if (!dot || dot.group.dataset.fault === worst) return;
        dot.group.dataset.fault = worst;
        dot.circle.setAttribute("r", worst === "good" ? dot.size : 1.45 * dot.size);
        dot.letter.textContent = LETTERS[worst] ?? "";
        dot.title.textContent = `${montage.names[index]}: ${faults.length ? faults.join(", ") : "good"}`;
        if (worst !== "good") find("map").append(dot.group); // above its neighbours
      });
      const good = message.faults.filter((faults) => faults.length === 0).length;
      say(find("map-good"), `${good} of ${message.faults.length} good`);
      say(find("map-sum").querySelector(".value"), String(good));
      say(find("map-sum").querySelector(".against"), `of ${message.faults.length} good`);
      const lines = [...byFault].filter(([, names]) => names.length).map(([fault, names]) => {
        const line = make("li");
        line.dataset.fault = fault;
        const more = names.length > MOST_NAMES ? ` and ${names.length - MOST_NAMES} more` : "";
        const words = make("span", "words");
        words.append(make("span", "what-fault", MEANINGS[fault]), make("span", "names text", names.slice(0, MOST_NAMES).join(", ") + more));
        line.append(make("span", "letter", LETTERS[fault]), words);
        return line;
      });
      if (lines.length) lines.push(make("li", "meta", "check these sensors"));
      else lines.push(make("li", "all-good", "✓ No fault in any channel"));
      const unknown = montage.places.some(Boolean) ? montage.places.filter((place) => !place).length : -1;
      if (unknown) lines.push(make("li", "meta", unknown < 0 ? "Positions are not known: in the order of the channels" : `${unknown} without a position`));
      find("faults").replaceChildren(...lines);
    },
  };
}
