// The session's events: server-sent events read by fetch, because EventSource cannot carry a token.
// A broken stream is taken up where it broke off.

import { pause } from "./dom.js";

const SILENT_MS = 40_000; // the server sends a comment each 15 s
const FIRST_MS = 300;
const CAP_MS = 8_000;

export class Feed {
  constructor(session, token, onEvent) {
    this._url = `/v1/sessions/${encodeURIComponent(session)}/events`;
    this._headers = token ? { Authorization: `Bearer ${token}` } : {};
    this._onEvent = onEvent;
    this._stop = null;
    this.lastId = "0";
  }

  start() {
    this.stop();
    this._stop = new AbortController();
    this._run(this._stop.signal);
  }

  stop() {
    this._stop?.abort();
  }

  async _run(stop) {
    let waitMs = FIRST_MS;
    while (!stop.aborted) {
      try {
        await this._read(stop, () => (waitMs = FIRST_MS));
      } catch {
        // away: the loop comes back
      }
      await pause(waitMs * (0.5 + Math.random() / 2), stop);
      waitMs = Math.min(CAP_MS, waitMs * 2);
    }
  }

  async _read(stop, alive) {
    const quiet = new AbortController();
    const leave = () => quiet.abort();
    stop.addEventListener("abort", leave, { once: true });
    let watch = setTimeout(leave, SILENT_MS);
    try {
      const answer = await fetch(`${this._url}?from=${this.lastId}`, {
        headers: this._headers,
        signal: quiet.signal,
        cache: "no-store",
      });
      if (answer.status !== 200) return;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(watch);
        watch = setTimeout(leave, SILENT_MS);
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) this._take(block, alive);
      }
    } finally {
      clearTimeout(watch);
      stop.removeEventListener("abort", leave);
    }
  }

  _take(block, alive) {
    let id = null;
    let data = null;
    for (const line of block.split("\n")) {
      if (line.startsWith("id: ")) id = line.slice(4);
      else if (line.startsWith("data: ")) data = line.slice(6);
    }
    if (data !== null) {
      alive();
      this._onEvent(JSON.parse(data));
    }
    if (id !== null) this.lastId = id;
  }
}
