// Each message goes to the panels that show its kind; keys and buttons do the same things.

import { channels } from "./channels.js";
import { connect } from "./connection.js";
import { decoded } from "./decoded.js";
import { find } from "./dom.js";
import { latency } from "./latency.js";
import { ledger } from "./ledger.js";
import { pictures } from "./pictures.js";
import { signal } from "./signal.js";
import { status } from "./status.js";
import { view } from "./view.js";

const bar = status();
const gallery = pictures();
const traces = signal();
const look = view(traces);
const panels = [bar, gallery, decoded(), latency(), ledger(), channels(), traces];

const connection = connect({
  onOpen: () => { bar.clear(); bar.connected(); },
  onGone: (text) => bar.gone(text),
  onMessage: (message) => {
    for (const panel of panels) panel[message.kind]?.(message);
    if (bar.isOver()) connection.stop();
  },
});

const ACTIONS = {
  f: look.turnFullScreen,
  v: look.turnFar,
  t: look.turnTheme,
  "?": look.showHelp,
  ArrowRight: () => gallery.step(1),
  ArrowLeft: () => gallery.step(-1),
  Home: gallery.toNewest,
  p: traces.hold,
  "+": () => traces.zoomBy(1.25),
  "=": () => traces.zoomBy(1.25),
  "-": () => traces.zoomBy(0.8),
  "−": () => traces.zoomBy(0.8),
  "[": () => traces.turn(-1),
  "]": () => traces.turn(1),
  b: traces.toggleFaults,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (find("help").open && event.key !== "?") return;
  // Only these names: "constructor" is a property of every object, and no key.
  if (!Object.hasOwn(ACTIONS, event.key)) return;
  if (event.key.startsWith("Arrow") && event.target.closest?.("[role=region]")) return;
  event.preventDefault();
  ACTIONS[event.key]();
});

const BUTTONS = {
  far: "f", theme: "t", "help-button": "?", previous: "[", next: "]", "only-faults": "b", smaller: "-", larger: "+", pause: "p",
};
for (const [id, key] of Object.entries(BUTTONS)) find(id).addEventListener("click", () => ACTIONS[key]());
