// A WHIP client (RFC 9725): offers tracks and the data channel `captions`, and comes back by itself.
// The same participant within the session's linger (30 s) continues the conversation.

import { pause } from "./dom.js";

const GATHER_MS = 400; // host candidates only: they are there at once
const RELAY_MS = 2_000; // candidates that another server gives
const OPEN_MS = 5_000; // a connection without its data channel still tracks
const LOST_MS = 3_000; // a connection may recover by itself for so long
const FIRST_MS = 500;
const CAP_MS = 10_000;
const VIDEO_BPS = 600_000;

export class Whip {
  // onState: "connecting" | "live" | "reconnecting" | "refused"; the last with what the server said.
  // `consent` is the version of the notice that was agreed to.
  constructor({ room, participant, purpose, consent, token, tracks, captions, onState }) {
    const query = new URLSearchParams({ participant, purpose, consent });
    this._url = `/whip/${encodeURIComponent(room)}?${query}`;
    this._iceUrl = `/v1/rooms/${encodeURIComponent(room)}/ice-servers`;
    this._auth = token ? { Authorization: `Bearer ${token}` } : {};
    this._tracks = tracks;
    this._captions = captions;
    this._onState = onState;
    this._stop = new AbortController();
    this._pc = null;
    this._channel = null;
    this._resource = null;
    this._liveAt = 0; // performance.now() of the media start
  }

  start() {
    this._run(this._stop.signal);
  }

  // Milliseconds since the media start: the clock of captions.
  nowMs() {
    return performance.now() - this._liveAt;
  }

  caption(startMs, endMs, text, language) {
    if (this._channel?.readyState !== "open") return false;
    const caption = { start_ms: Math.max(0, Math.round(startMs)), end_ms: Math.max(0, Math.round(endMs)), text };
    this._channel.send(JSON.stringify(language ? { ...caption, language } : caption));
    return true;
  }

  // Comes back at once: the events tell that the server's end is gone, seconds before the connection notices.
  reconnect() {
    this._pc?.close();
    this._pc?.dispatchEvent(new Event("connectionstatechange")); // which `close` keeps to itself
  }

  // Says goodbye, so that the open utterance is flushed at once; `keepalive` outlives the page.
  async stop() {
    this._stop.abort();
    const resource = this._resource;
    this._resource = null;
    this._pc?.close();
    if (resource === null) return;
    try {
      await fetch(resource, { method: "DELETE", headers: this._auth, keepalive: true });
    } catch {
      // the server finds out by itself
    }
  }

  async _run(stop) {
    let waitMs = FIRST_MS;
    this._onState("connecting");
    while (!stop.aborted) {
      try {
        await this._connect(stop);
        waitMs = FIRST_MS;
        await this._untilLost(stop);
      } catch (error) {
        if (error instanceof Refused) {
          if (!stop.aborted) this._onState("refused", error.message);
          return;
        }
        if (error.retryAfterMs) waitMs = Math.max(waitMs, error.retryAfterMs);
      }
      this._pc?.close();
      if (stop.aborted) return;
      this._onState("reconnecting");
      await pause(waitMs * (0.75 + Math.random() / 2), stop);
      waitMs = Math.min(CAP_MS, waitMs * 2);
    }
  }

  async _connect(stop) {
    const iceServers = await this._iceServers(stop);
    const pc = (this._pc = new RTCPeerConnection({ bundlePolicy: "max-bundle", iceServers }));
    for (const track of this._tracks) {
      const limits = track.kind === "video" ? { sendEncodings: [{ maxBitrate: VIDEO_BPS }] } : {};
      pc.addTransceiver(track, { direction: "sendonly", ...limits });
    }
    const opened = this._captions ? this._open(pc) : Promise.resolve();
    await pc.setLocalDescription(await pc.createOffer());
    await gathered(pc, iceServers.length ? RELAY_MS : GATHER_MS);
    const answer = await fetch(this._url, {
      method: "POST",
      headers: { ...this._auth, "Content-Type": "application/sdp" },
      body: pc.localDescription.sdp,
      signal: AbortSignal.any([stop, AbortSignal.timeout(15_000)]),
    });
    if (!answer.ok) await refuse(answer);
    const resource = new URL(answer.headers.get("Location"), location.href).href;
    if (stop.aborted) {
      fetch(resource, { method: "DELETE", headers: this._auth, keepalive: true }).catch(() => {});
      return;
    }
    this._resource = resource;
    await pc.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    await connected(pc, stop);
    await Promise.race([opened, pause(OPEN_MS, stop)]);
    this._liveAt = performance.now();
    if (!stop.aborted) this._onState("live");
  }

  // Anew for each connection: a login ends after some hours.
  async _iceServers(stop) {
    const answer = await fetch(this._iceUrl, {
      headers: this._auth,
      cache: "no-store",
      signal: AbortSignal.any([stop, AbortSignal.timeout(15_000)]),
    });
    if (!answer.ok) await refuse(answer);
    return await answer.json();
  }

  _open(pc) {
    this._channel = pc.createDataChannel("captions");
    return new Promise((resolve) => (this._channel.onopen = resolve));
  }

  // Until the connection has failed, or has been broken for too long to hope.
  async _untilLost(stop) {
    const pc = this._pc;
    while (!stop.aborted) {
      await changed(pc, stop);
      if (["failed", "closed"].includes(pc.connectionState)) return;
      if (pc.connectionState === "disconnected") {
        await Promise.race([changed(pc, stop), pause(LOST_MS, stop)]);
        if (pc.connectionState !== "connected") return;
      }
    }
  }
}

class Refused extends Error {}

async function refuse(answer) {
  let detail = answer.statusText;
  try {
    detail = (await answer.json()).detail;
  } catch {
    // no problem document: the status has to do
  }
  if (answer.status >= 500 || answer.status === 429 || answer.status === 409) {
    throw Object.assign(new Error(detail), { retryAfterMs: 1000 * (Number(answer.headers.get("Retry-After")) || 0) });
  }
  throw new Refused(detail);
}

function changed(pc, stop) {
  return new Promise((resolve) => {
    pc.addEventListener("connectionstatechange", resolve, { once: true });
    stop.addEventListener("abort", resolve, { once: true });
  });
}

async function connected(pc, stop) {
  while (pc.connectionState !== "connected") {
    if (stop.aborted || ["failed", "closed"].includes(pc.connectionState)) throw new Error("not connected");
    await changed(pc, stop);
  }
}

function gathered(pc, ms) {
  if (pc.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
    pc.addEventListener("icegatheringstatechange", () => pc.iceGatheringState === "complete" && resolve());
  });
}
