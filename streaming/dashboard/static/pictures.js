// The picture that grows, and the strip of those before it.

import { duration, find, make, say } from "./dom.js";

const MOST = 24;

export function pictures() {
  const known = new Map(); // by ordinal, in the order of arrival
  const concepts = new Map();
  let chosen = null; // an ordinal that is looked at, or null for the newest

  const newest = () => [...known.keys()].reduce((a, b) => Math.max(a, b), -1);

  const describe = (picture) => {
    const stage = picture.stage === 1 ? "stage 1" : `stage 2, frame ${picture.frame} of ${picture.n_frames}`;
    return picture.final ? "✓ finished" : `${stage}…`;
  };

  const fill = (number, share) => {
    const stage = find("growth").querySelector(`[data-stage="${number}"]`);
    stage.dataset.done = String(share >= 1);
    stage.querySelector(".fill").style.width = `${100 * Math.min(share, 1)}%`;
  };

  const main = () => {
    const picture = known.get(chosen ?? newest());
    if (!picture) return;
    const image = find("picture");
    if (image.dataset.key !== picture.key) {
      image.src = picture.url;
      image.dataset.key = picture.key;
    }
    const name = concepts.get(picture.ordinal) ?? "";
    image.alt = `Generated picture for marker ${picture.ordinal}${name ? `, decoded as ${name}` : ""}`;
    image.hidden = false;
    find("stamp").hidden = false;
    find("picture-none").hidden = true;
    say(find("picture-marker"), `${chosen === null ? "" : "looking back: "}#${picture.ordinal} ${picture.text}`);
    say(find("picture-concept"), name);
    say(find("picture-progress"), describe(picture));
    say(find("picture-took"), picture.seconds === null ? "" : `· ${duration(picture.seconds)} after its epoch`);
    fill(1, picture.stage === 1 ? picture.frame / picture.n_frames : 1);
    fill(2, picture.stage === 1 ? 0 : picture.final ? 1 : picture.frame / picture.n_frames);
    find("to-live").hidden = chosen === null;
  };

  const card = (picture) => {
    const item = make("li");
    item.dataset.ordinal = picture.ordinal;
    const button = make("button", "card");
    button.type = "button";
    const image = make("img");
    image.alt = "";
    button.append(image, make("span", "concept text"), make("span", "marker text"));
    button.addEventListener("click", () => choose(picture.ordinal));
    item.append(button);
    return item;
  };

  const strip = () => {
    const list = find("history");
    const ordinals = [...known.keys()].sort((a, b) => b - a);
    const present = new Map([...list.children].map((item) => [Number(item.dataset.ordinal), item]));
    const items = ordinals.map((ordinal) => present.get(ordinal) ?? card(known.get(ordinal)));
    ordinals.forEach((ordinal, index) => {
      const [picture, item] = [known.get(ordinal), items[index]];
      const image = item.querySelector("img");
      if (image.dataset.key !== picture.key) { image.src = picture.url; image.dataset.key = picture.key; }
      say(item.querySelector(".concept"), concepts.get(ordinal) ?? "");
      say(item.querySelector(".marker"), `#${ordinal} ${picture.text}`);
      item.querySelector("button").setAttribute("aria-pressed", String(ordinal === chosen));
      if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
    });
    while (list.children.length > items.length) list.lastChild.remove();
  };

  const show = () => { main(); strip(); };
  const choose = (ordinal) => { chosen = ordinal === newest() ? null : ordinal; show(); };

  find("to-live").addEventListener("click", () => choose(newest()));

  return {
    picture(message) {
      const key = `${message.ordinal}/${message.stage}/${message.frame}/${message.final}`;
      known.set(message.ordinal, { ...message, key, url: `data:image/png;base64,${message.png}` });
      const ordinals = [...known.keys()].sort((a, b) => a - b);
      for (const old of ordinals.slice(0, Math.max(0, ordinals.length - MOST))) {
        if (old === chosen) continue;
        known.delete(old);
        concepts.delete(old);
      }
      show();
    },

    decoded(message) {
      concepts.set(message.ordinal, message.top[0]?.name ?? "");
      if (concepts.size > 4 * MOST) concepts.delete(concepts.keys().next().value);
      if (known.has(message.ordinal)) show();
    },

    /** Older (1) or newer (-1). */
    step(direction) {
      const ordinals = [...known.keys()].sort((a, b) => b - a);
      if (!ordinals.length) return;
      const place = ordinals.indexOf(chosen ?? newest()) + direction;
      choose(ordinals[Math.min(Math.max(place, 0), ordinals.length - 1)]);
    },

    toNewest() { if (known.size) choose(newest()); },
  };
}
