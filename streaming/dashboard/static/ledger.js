// The books: every marker in one state, and whether they balance.

import { find, make, say } from "./dom.js";

const SIGNS = { decoded: "✓", rejected: "✕", refused: "⊘", skipped: "»", pending: "…" };

export function ledger() {
  const sign = (state) => SIGNS[state] ?? "?";

  const entry = ({ ordinal, text, state, reason }) => {
    const line = make("li");
    line.dataset.state = state;
    const about = make("span", "about");
    about.append(make("span", "text", text), make("span", "reason text", reason ? `${state}: ${reason}` : state));
    line.append(make("span", "sign", sign(state)), make("span", "ordinal", `#${ordinal}`), about);
    return line;
  };

  return {
    ledger(message) {
      const states = Object.entries(message.totals);
      const sum = states.reduce((total, [, count]) => total + count, 0);
      const balanced = sum === message.received;
      say(find("ledger-received"), `${message.received} received`);
      find("ledger-bar").replaceChildren(...states.filter(([, count]) => count > 0).map(([state, count]) => {
        const part = make("span", "", count / Math.max(sum, 1) > 0.08 ? sign(state) : "");
        part.dataset.state = state;
        part.style.flexGrow = count;
        return part;
      }));
      find("ledger-bar").setAttribute("aria-label", states.map(([state, count]) => `${count} ${state}`).join(", "));
      find("ledger-totals").replaceChildren(...states.map(([state, count]) => {
        const cell = make("div");
        cell.dataset.state = state;
        cell.append(make("dt", "", `${sign(state)} ${state}`), make("dd", "", String(count)));
        return cell;
      }));
      const balance = find("ledger-balance");
      balance.dataset.level = balanced ? "" : "bad";
      const counts = states.map(([, count]) => count).join(" + ") || "0";
      say(balance.querySelector(".verdict"), balanced ? "✓ Balanced" : "▲ Not balanced");
      say(balance.querySelector(".counts"), `: ${counts} = ${sum}${balanced ? "" : `, not ${message.received}`}`);
      say(find("ledger-sum").querySelector(".value"), String(message.totals.decoded ?? 0));
      say(find("ledger-sum").querySelector(".against"), `of ${message.received} decoded`);
      const pictures = Object.entries(message.pictures).filter(([, count]) => count > 0);
      say(find("ledger-pictures"), pictures.length ? `Pictures: ${pictures.map(([name, count]) => `${count} ${name}`).join(", ")}` : "");
      find("entries").replaceChildren(...message.entries.map(entry));
    },
  };
}
