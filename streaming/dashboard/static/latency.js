// When each stage ran the last time, from the end of the epoch on, against the deadline; and how long over the session.

import { duration, find, make, say } from "./dom.js";

export function latency() {
  const row = (stage) => {
    const line = make("tr");
    const name = make("th", "text");
    name.scope = "row";
    const bar = make("td", "bar");
    const track = make("span", "track");
    track.append(make("span", "fill"), make("span", "deadline"));
    bar.append(track);
    line.append(name, bar, ...["last", "p50", "p95", "p99", "longest"].map((key) => {
      const cell = make("td");
      cell.dataset.key = key;
      return cell;
    }));
    return line;
  };

  return {
    latency(message) {
      const { stages, deadline, n } = message;
      say(find("latency-n"), `${n} ${n === 1 ? "marker" : "markers"}`);
      const body = find("stages");
      while (body.children.length < stages.length) body.append(row());
      while (body.children.length > stages.length) body.lastChild.remove();
      const start = (stage) => stage.start ?? 0;
      const first = Math.min(0, ...stages.map(start));
      const last = Math.max(deadline ?? 0, ...stages.map((stage) => start(stage) + stage.last)) * 1.04 || 1;
      const at = (seconds) => `${(100 * (seconds - first)) / (last - first)}%`;
      stages.forEach((stage, index) => {
        const line = body.children[index];
        line.className = stage.total ? "total" : "";
        const over = stage.total && deadline !== null && stage.last > deadline;
        line.dataset.level = over ? "bad" : "";
        say(line.querySelector("th"), over ? `▲ ${stage.name}` : stage.name);
        const fill = line.querySelector(".fill");
        fill.style.left = at(start(stage));
        fill.style.width = `max(2px, ${(100 * stage.last) / (last - first)}%)`;
        const mark = line.querySelector(".deadline");
        mark.hidden = deadline === null;
        if (deadline !== null) mark.style.left = at(deadline);
        for (const cell of line.querySelectorAll("[data-key]")) say(cell, duration(stage[cell.dataset.key]));
      });
      say(find("latency-axis"), `${first < 0 ? `${duration(first)} to ` : ""}${duration(last)}`);
      const whole = stages.filter((stage) => stage.total);
      const main = whole.at(-1);
      const against = deadline === null ? "no deadline" : `deadline ${duration(deadline)}`;
      const sum = find("latency-sum");
      say(sum.querySelector(".name"), main ? `${main.name}, ` : "");
      say(sum.querySelector(".value"), main ? duration(main.last) : "");
      say(sum.querySelector(".against"), against);
      sum.dataset.level = main && deadline !== null && main.last > deadline ? "bad" : "";
    },
  };
}
