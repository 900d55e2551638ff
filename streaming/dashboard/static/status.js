// The bar at the top: the stream's state and figures, the recording light; and what happened.

import { bytes, clock, duration, find, fixed, make, say } from "./dom.js";

const SIGNS = { wait: "○", warm: "◐", good: "●", bad: "▲", end: "■" };
const LEVELS = { waiting: "wait", "warming up": "warm", running: "good", silent: "bad", stale: "bad", lost: "bad", ended: "end" };
const WORDS = {
  waiting: "Waiting for the signal", running: "Live", silent: "No signal", stale: "Signal is old", lost: "Stream is lost", ended: "Ended",
};
const NOTICE = { note: ["·", "Note"], warning: ["▲", "Warning"], error: ["✕", "Error"] };
const OLD_MS = 2000;
const MOST_NOTICES = 50;

export function status() {
  let heard = performance.now();
  let stream = null;
  let session = null;
  let gone = null;

  const show = (level, word) => {
    const state = find("state");
    state.dataset.level = level;
    say(state.querySelector(".sign"), SIGNS[level]);
    say(state.querySelector(".word"), word);
  };

  const fact = (name, text, level = "") => {
    const row = find("facts").querySelector(`[data-fact="${name}"]`);
    say(row.querySelector("dd"), level === "bad" ? `▲ ${text}` : text);
    row.dataset.level = level;
  };

  const alert = (text) => {
    const line = find("alert");
    line.hidden = text === null;
    if (text !== null) say(line, text);
  };

  const state = () => {
    const silent = performance.now() - heard;
    document.body.dataset.old = String(gone !== null || (stream !== null && silent > OLD_MS && !session?.ended));
    if (session?.ended) {
      show("end", `Ended: ${session.ended}`);
      alert(null);
      return;
    }
    alert(gone);
    if (gone !== null) show("bad", "Not connected");
    else if (stream === null) show("wait", session === null ? "Connecting" : "Opening the source");
    else if (silent > OLD_MS) show("bad", `Nothing from md-stream for ${Math.floor(silent / 1000)} s`);
    else if (stream.state === "warming up") show("warm", `Warming up, ${duration(stream.warm_up)}`);
    else show(LEVELS[stream.state] ?? "bad", WORDS[stream.state] ?? stream.state);
  };
  setInterval(state, 500);

  return {
    connected() { gone = null; heard = performance.now(); state(); },
    gone(text) { gone = text; state(); },
    isOver: () => Boolean(session?.ended),

    session(message) {
      session = message;
      const averaged = message.average_by ? `, averaged by ${message.average_by}` : "";
      say(find("what"), `${message.bundle} · ${message.source}${averaged}`);
      find("what").title = find("what").textContent;
      say(find("label"), message.label);
      state();
    },

    stream(message) {
      stream = message;
      heard = performance.now();
      const off = message.measured === null ? 0 : Math.abs(message.measured / message.nominal - 1);
      const digits = message.nominal < 1000 ? 1 : 0;
      fact("rate", `${fixed(message.measured, digits)} of ${fixed(message.nominal, 0)} Hz`, off > 0.01 ? "bad" : "");
      fact("age", duration(message.age), message.age !== null && message.age > 1 ? "bad" : "");
      const spread = message.uncertainty === null ? "" : ` ± ${duration(message.uncertainty)}`;
      fact("offset", message.offset === null ? "–" : `${duration(message.offset)}${spread}`);
      fact("gaps", fixed(message.gaps), message.gaps > 0 ? "bad" : "");
      fact("dropped", fixed(message.dropped), message.dropped > 0 ? "bad" : "");
      state();
    },

    recording(message) {
      const light = find("recording");
      light.dataset.level = message.stopped ? "bad" : message.on ? "on" : "off";
      say(light.querySelector(".sign"), message.stopped ? "▲" : message.on ? "●" : "○");
      const word = message.stopped ? `Recording stopped: ${message.stopped}` : message.on ? `REC ${clock(message.seconds)}` : "Not recording";
      say(light.querySelector(".size"), message.on || message.stopped ? bytes(message.n_bytes) : "");
      say(light.querySelector(".word"), word);
      light.title = message.folder;
    },

    notice(message) {
      const [sign, word] = NOTICE[message.level] ?? NOTICE.error;
      const line = make("li");
      line.dataset.level = message.level;
      const mark = make("span", "sign", sign);
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", word);
      line.append(make("time", "", clock(message.at)), mark, make("span", "text", message.text));
      const list = find("notices");
      list.prepend(line);
      while (list.children.length > MOST_NOTICES) list.lastChild.remove();
      find("no-notices").hidden = true;
    },

    clear() { find("notices").replaceChildren(); },
  };
}
