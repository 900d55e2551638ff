// One judge's page. It knows tickets and picture names that are random, and never what a picture is.

const BLANK_MS = 200; // between two showings, so that a change is not seen as a movement
const SIDES = ["left", "right"];
const PLACES = ["stimulus", ...SIDES];
const ALT = { stimulus: "Original", left: "Left picture", right: "Right picture" };
const KEYS = { ArrowLeft: "left", 1: "left", ArrowRight: "right", 2: "right" };
const VIEWS = ["start", "trial", "end"];

const find = (id) => document.getElementById(id);
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
// Two frames: what was put into the page before the first is on the screen at the second.
const painted = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));

const loaded = new Map(); // name -> image that is loading or loaded
let state = null;
let open = null; // since when an answer to this showing counts, and what it says besides; null while none does
let away = false;
let pending = null; // an answer that is not saved yet

function image(name) {
  if (!loaded.has(name)) {
    const made = new Image();
    made.draggable = false;
    made.addEventListener("error", () => loaded.delete(name)); // asked for anew when its turn comes
    made.src = `/picture/${name}`;
    loaded.set(name, made);
  }
  return loaded.get(name);
}

function view(name) {
  for (const other of VIEWS) find(other).hidden = other !== name;
  find("page").dataset.view = name;
}

function trouble(text) {
  find("trouble-text").textContent = text;
  find("trouble").hidden = !text;
  if (text) find("again").focus();
}

function progress() {
  find("bar").max = Math.max(state.total, 1);
  find("bar").value = state.done;
  find("count").textContent = `${state.done} of ${state.total}`;
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  if (answer.status === 403 || answer.status === 421) throw new Error("entrance");
  const content = await answer.json();
  if (answer.status === 507) throw new Error(content.error);
  return content;
}

function excuse(error) {
  if (error.message === "entrance") return "This window was not let in: open the address that the terminal shows.";
  if (error instanceof TypeError) return "The study's computer does not answer. Your earlier answers are saved.";
  return error.message;
}

/** Shows what the state says: blank, then all three pictures at once. */
async function show() {
  open = null;
  progress();
  if (state.finished) {
    loaded.clear();
    view("end");
    find("end-title").focus();
    return;
  }
  const { ticket, pictures } = state;
  const names = [...Object.values(pictures), ...state.next];
  for (const name of loaded.keys()) if (!names.includes(name)) loaded.delete(name);
  const images = PLACES.map((place) => image(pictures[place]));
  view("trial");
  find("page").dataset.shown = "";
  for (const place of PLACES) find(place).replaceChildren();
  try {
    await Promise.all([wait(BLANK_MS), ...images.map((each) => each.decode())]);
  } catch {
    for (const place of PLACES) loaded.delete(pictures[place]);
    pending = null;
    trouble("A picture could not be loaded.");
    return;
  }
  PLACES.forEach((place, number) => {
    images[number].alt = ALT[place];
    find(place).replaceChildren(images[number]);
  });
  await painted();
  const since = performance.now();
  away = document.hidden;
  for (const name of state.next) image(name);
  await wait(state.minimum_ms);
  if (state.ticket !== ticket) return;
  open = { ticket, since };
  find("page").dataset.shown = state.done;
}

/** The first answer to a showing counts; nothing does before the pictures have been there for a while. */
function choose(side, input) {
  if (open === null) return;
  const { ticket, since } = open;
  open = null;
  pending = {
    ticket,
    choice: side,
    response_ms: Math.round(10 * (performance.now() - since)) / 10,
    input,
    view: [innerWidth, innerHeight, devicePixelRatio],
    away,
  };
  send();
}

async function send() {
  const body = JSON.stringify(pending);
  try {
    const headers = { "content-type": "application/json" };
    state = await ask("/answer", { method: "POST", headers, body });
  } catch (error) {
    trouble(excuse(error));
    return;
  }
  pending = null;
  show();
}

async function look(then) {
  try {
    state = await ask("/state");
  } catch (error) {
    trouble(excuse(error));
    return;
  }
  then();
}

function greet() {
  progress();
  if (state.finished) {
    show();
    return;
  }
  find("so-far").textContent = state.done ? `${state.done} of ${state.total} are answered.` : "";
  find("begin").textContent = state.done ? "Go on" : "Begin";
  view("start");
  find("begin").focus();
  for (const name of Object.values(state.pictures)) image(name);
}

addEventListener("keydown", (event) => {
  const side = KEYS[event.key];
  if (!side || event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
  if (find("page").dataset.view !== "trial") return;
  event.preventDefault();
  choose(side, "keyboard");
});
for (const side of SIDES) {
  find(side).addEventListener("click", (event) => {
    const kind = event.detail === 0 ? "keyboard" : event.pointerType;
    choose(side, ["mouse", "touch", "pen"].includes(kind) ? kind : event.detail === 0 ? "keyboard" : "mouse");
  });
  find(side).addEventListener("contextmenu", (event) => event.preventDefault());
}
document.addEventListener("visibilitychange", () => { away ||= document.hidden; });
find("begin").addEventListener("click", () => look(show));
find("again").addEventListener("click", () => {
  trouble("");
  if (pending) send();
  else look(find("page").dataset.view === "trial" ? show : greet);
});

look(greet);
