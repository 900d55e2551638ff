// Light and dark, the view that is read from afar, full screen, and the list of keys.

import { find, say } from "./dom.js";

const root = document.documentElement;
const system = window.matchMedia("(prefers-color-scheme: dark)");

function remembered() {
  try { return localStorage.getItem("minddiffuser-theme"); } catch { return null; }
}

function remember(value) {
  try { localStorage.setItem("minddiffuser-theme", value); } catch { /* private mode */ }
}

export function view({ redraw }) {
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  const label = () => {
    const theme = find("theme");
    say(theme, isDark() ? "Light" : "Dark");
    theme.setAttribute("aria-pressed", String(isDark()));
    redraw();
  };

  const showFar = (far) => {
    root.dataset.view = far ? "far" : "near";
    find("far").setAttribute("aria-pressed", String(far));
    say(find("far"), far ? "All panels" : "Full screen");
    redraw();
  };

  const saved = remembered();
  if (saved === "dark" || saved === "light") root.dataset.theme = saved;
  system.addEventListener("change", label);
  document.addEventListener("fullscreenchange", () => { if (!document.fullscreenElement) showFar(false); });
  label();

  return {
    turnTheme() {
      root.dataset.theme = isDark() ? "light" : "dark";
      remember(root.dataset.theme);
      label();
    },

    turnFar() { showFar(root.dataset.view !== "far"); },

    async turnFullScreen() {
      const far = root.dataset.view !== "far";
      showFar(far);
      try {
        if (far) await root.requestFullscreen();
        else if (document.fullscreenElement) await document.exitFullscreen();
      } catch { /* not allowed here: the large type does without */ }
    },

    showHelp() {
      const help = find("help");
      if (help.open) help.close(); else help.showModal();
    },
  };
}
