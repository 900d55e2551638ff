"use strict";
(() => {
  const root = document.documentElement;
  const find = (id) => document.getElementById(id);

  const theme = find("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => { try { return localStorage.getItem("minddiffuser-theme"); } catch { return null; } };
  const remember = (value) => { try { localStorage.setItem("minddiffuser-theme", value); } catch { /* private mode */ } };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => {
    theme.textContent = isDark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", isDark() ? "Switch to light colours" : "Switch to dark colours");
    theme.setAttribute("aria-pressed", String(isDark()));
  };
  const saved = remembered();
  if (saved === "dark" || saved === "light") root.dataset.theme = saved;
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    label();
  });
  system.addEventListener("change", label);
  label();

  const cards = find("cards");
  const key = find("sort-key");
  const order = find("sort-order");
  const status = find("sort-status");
  let descending = false;
  const value = (card) => {
    const text = card.getAttribute("data-" + key.value);
    return text === null || text === "" ? null : Number(text);
  };
  const compare = (one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === null || b === null) return (a === null) - (b === null); // trials without a value come last
    return (descending ? b - a : a - b) || one.dataset.trial - other.dataset.trial;
  };
  const sort = () => {
    order.textContent = descending ? "Largest first" : "Smallest first";
    const sorted = [...cards.children].sort(compare);
    cards.replaceChildren(...sorted);
    status.textContent =
      `${sorted.length} trials sorted by ${key.selectedOptions[0].textContent}, ${order.textContent.toLowerCase()}`;
  };
  key.addEventListener("change", () => { descending = key.value !== "trial"; sort(); });
  order.addEventListener("click", () => { descending = !descending; sort(); });
  find("sorter").addEventListener("submit", (event) => event.preventDefault());
  find("sorter").hidden = cards.children.length < 2;
})();
