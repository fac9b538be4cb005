// The people of a room see and hear each other: one peer connection to each, set up over the server's relay.
// Who enters offers, so that no two offers cross. The media never pass the server.

import { pause } from "./dom.js";

const FULL = 1013;
const REPLACED = 4001;
const FIRST_MS = 500;
const CAP_MS = 10_000;

export class Mesh {
  // onStream(peer, stream | null); onFull(): the room has as many people as a mesh takes; onReplaced(): the same
  // participant came in by another window.
  constructor({ room, participant, token, stream, onStream, onFull, onReplaced }) {
    const query = new URLSearchParams({ participant });
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this._url = `${scheme}://${location.host}/v1/rooms/${encodeURIComponent(room)}/mesh?${query}`;
    this._protocols = token ? ["cmath-stream", `bearer.${base64url(token)}`] : ["cmath-stream"];
    this._stream = stream;
    this._onStream = onStream;
    this._onFull = onFull;
    this._onReplaced = onReplaced;
    this._peers = new Map();
    this._stop = new AbortController();
    this._socket = null;
    this._iceServers = [];
  }

  start() {
    this._run(this._stop.signal);
  }

  stop() {
    this._stop.abort();
    this._socket?.close();
    this._clear();
  }

  async _run(stop) {
    let waitMs = FIRST_MS;
    while (!stop.aborted) {
      const code = await this._session(() => (waitMs = FIRST_MS));
      this._clear();
      if (stop.aborted) return;
      if (code === REPLACED) return this._onReplaced();
      if (code === FULL) this._onFull();
      await pause(waitMs * (0.75 + Math.random() / 2), stop);
      waitMs = Math.min(CAP_MS, waitMs * 2);
    }
  }

  // One connection to the relay, until it is lost → its close code.
  _session(welcomed) {
    return new Promise((resolve) => {
      const socket = (this._socket = new WebSocket(this._url, this._protocols));
      let work = Promise.resolve(); // messages in their order, each done before the next
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "welcome") welcomed();
        work = work.then(() => this._on(message)).catch(() => this._drop(message.from ?? message.peer));
      };
      socket.onclose = ({ code }) => resolve(code);
    });
  }

  async _on(message) {
    switch (message.type) {
      case "welcome":
        this._iceServers = message.ice_servers;
        for (const peer of message.peers) await this._offer(peer);
        break;
      case "joined":
        this._drop(message.peer); // it came back: what there was is dead
        break;
      case "left":
        this._drop(message.peer);
        break;
      case "signal":
        await this._signal(message.from, message.data);
    }
  }

  async _offer(peer) {
    const pc = this._connection(peer);
    for (const kind of ["audio", "video"]) {
      const track = this._stream?.getTracks().find((one) => one.kind === kind);
      pc.addTransceiver(track ?? kind, {
        direction: track ? "sendrecv" : "recvonly",
        streams: this._stream ? [this._stream] : [],
      });
    }
    await pc.setLocalDescription();
    this._send(peer, { description: pc.localDescription });
  }

  async _signal(peer, { description, candidate }) {
    if (description?.type === "offer") {
      const pc = this._connection(peer);
      await pc.setRemoteDescription(description);
      for (const track of this._stream?.getTracks() ?? []) pc.addTrack(track, this._stream);
      await pc.setLocalDescription();
      this._send(peer, { description: pc.localDescription });
    } else if (description) {
      await this._peers.get(peer)?.setRemoteDescription(description);
    } else if (candidate) {
      await this._peers.get(peer)?.addIceCandidate(candidate);
    }
  }

  _connection(peer) {
    this._drop(peer);
    const pc = new RTCPeerConnection({ iceServers: this._iceServers });
    const incoming = new MediaStream();
    pc.onicecandidate = ({ candidate }) => candidate && this._send(peer, { candidate });
    pc.ontrack = ({ track }) => {
      incoming.addTrack(track);
      this._onStream(peer, incoming);
    };
    pc.onconnectionstatechange = () => pc.connectionState === "failed" && this._drop(peer);
    this._peers.set(peer, pc);
    return pc;
  }

  _drop(peer) {
    const pc = this._peers.get(peer);
    if (pc === undefined) return;
    pc.close();
    this._peers.delete(peer);
    this._onStream(peer, null);
  }

  _clear() {
    for (const peer of [...this._peers.keys()]) this._drop(peer);
  }

  _send(to, data) {
    if (this._socket?.readyState === WebSocket.OPEN) this._socket.send(JSON.stringify({ to, data }));
  }
}

function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
