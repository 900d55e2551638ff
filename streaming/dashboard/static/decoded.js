// The decoded concepts with the level of chance, and the running control.

import { find, make, niceAbove, percent, say } from "./dom.js";

const SHOWN = 5;

export function decoded() {
  const row = () => {
    const item = make("li", "bar-row");
    const track = make("span", "track");
    track.append(make("span", "fill"), make("span", "tick"));
    item.append(make("span", "name text"), track, make("span", "number"));
    return item;
  };

  const fill = (item, share, tick, most) => {
    item.querySelector(".fill").style.width = `${100 * Math.min(Math.max(share, 0) / most, 1)}%`;
    item.querySelector(".tick").style.left = `${100 * Math.min(tick / most, 1)}%`;
    say(item.querySelector(".number"), percent(share));
  };

  return {
    decoded(message) {
      const top = message.top.slice(0, SHOWN);
      const averaged = message.n_averaged > 1 ? ` · mean of ${message.n_averaged} epochs` : "";
      say(find("decoded-marker"), `#${message.ordinal} ${message.text}${averaged}`);
      const list = find("concepts");
      while (list.children.length < top.length) list.append(row());
      while (list.children.length > top.length) list.lastChild.remove();
      const most = Math.min(1, niceAbove(Math.max(2 * message.chance, 0.02, ...top.map((concept) => concept.score))));
      top.forEach((concept, index) => {
        say(list.children[index].querySelector(".name"), concept.name);
        fill(list.children[index], concept.score, message.chance, most);
      });
      const confidence = message.confidence === null ? "" : ` · confidence ${percent(message.confidence)}`;
      say(find("measure"), `${message.measure}, bars to ${percent(most)}${confidence}`);
      say(find("chance"), `┆ chance ${percent(message.chance)}`);
      const warning = find("warning");
      warning.hidden = message.warning === null;
      if (message.warning !== null) say(warning, `▲ ${message.warning}`);
      const none = find("no-control");
      none.hidden = message.no_control === null;
      if (message.no_control !== null) say(none, message.no_control);
      const control = find("control");
      control.hidden = message.control === null;
      if (message.control === null) return;
      const { label, n, value, shuffled, chance } = message.control;
      say(find("control-label"), `${label} · ${n} ${n === 1 ? "epoch" : "epochs"} · ┆ chance ${percent(chance)}`);
      fill(control.querySelector('[data-row="value"]'), value, chance, 1);
      fill(control.querySelector('[data-row="shuffled"]'), shuffled, chance, 1);
    },
  };
}
