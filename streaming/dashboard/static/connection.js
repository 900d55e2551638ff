// The WebSocket: it only listens. When it is gone it is asked for again, and the page says so meanwhile.

const FIRST_MS = 500;
const LONGEST_MS = 5000;

export function connect({ onMessage, onOpen, onGone }) {
  let wait = FIRST_MS;
  let over = false;

  const why = async () => {
    try {
      const answer = await fetch("/", { method: "HEAD", cache: "no-store" });
      if (answer.ok) return "The connection was lost: trying again. Too many open pages, or this one was too slow.";
      return "This browser is not let in any more: open the newest address that md-stream printed.";
    } catch {
      return "md-stream does not answer: it has ended, or the tunnel to it is closed.";
    }
  };

  const open = () => {
    const socket = new WebSocket(`ws://${location.host}/live`);
    socket.addEventListener("open", () => { wait = FIRST_MS; onOpen(); });
    socket.addEventListener("message", (event) => onMessage(JSON.parse(event.data)));
    socket.addEventListener("close", async () => {
      if (over) return;
      onGone(await why());
      setTimeout(open, wait);
      wait = Math.min(2 * wait, LONGEST_MS);
    });
  };

  open();
  return { stop: () => { over = true; } };
}
