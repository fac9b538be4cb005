// A call under way: our tracks to the server, everybody's events to the cards, the others' pictures beside them.

import { Captions } from "./captions.js";
import { Card } from "./card.js";
import { Conversation, strongest } from "./conversation.js";
import { byId, el, percent, say, seconds } from "./dom.js";
import { csv, download, jsonl } from "./export.js";
import { Feed } from "./feed.js";
import { Mesh } from "./mesh.js";
import { Whip } from "./whip.js";
import { hue, personName, title } from "./words.js";

const ANNOUNCE_MS = 1_500; // a screen reader is not told more often than this
const GONE_MS = 1_500; // a "left" that no "joined" follows within so long is not our own coming back
const TYPED_MS = 60; // for a letter: how long a typed sentence would have taken to say
const STATES = {
  connecting: "Connecting",
  live: "Live",
  paused: "Paused",
  reconnecting: "Reconnecting",
  refused: "Not connected",
};

export class Call {
  constructor({ room, token, participant, conversation, lastId, onLeft }) {
    this.conversation = conversation;
    this._room = room;
    this._token = token;
    this._me = participant;
    this._onLeft = onLeft;
    this._cards = new Map();
    this._streams = new Map(); // participant → stream, also before there is a card
    this._stream = null; // what we show and send to the others
    this._tracked = []; // clones of its tracks, which go to the server and which a pause silences
    this._whip = this._mesh = this._captions = null;
    this._state = "connecting";
    this._paused = false;
    this._following = true; // the timelines show the newest
    this._announceAt = 0;
    this._announcing = null;
    this._gone = null; // timer
    this._feed = new Feed(room, token, (event) => this._onEvent(event));
    this._feed.lastId = lastId;
  }

  get lastId() {
    return this._feed.lastId;
  }

  // Raises an Error with a line for the user when camera or microphone cannot be had.
  async start({ media, captions, purpose, consent }) {
    if (media !== "words") this._stream = await capture(media === "both");
    this._tracked = this._stream?.getTracks().map((track) => track.clone()) ?? [];
    this._streams.set(this._me, this._stream);
    byId("call-room").textContent = this._room;
    byId("say").hidden = media !== "words";
    byId("call").hidden = false;
    byId("people").replaceChildren();
    this._whip = new Whip({
      room: this._room, participant: this._me, purpose, consent, token: this._token, tracks: this._tracked,
      captions: captions || media === "words",
      onState: (state, detail) => this._onState(state, detail),
    });
    this._mesh = new Mesh({
      room: this._room, participant: this._me, token: this._token, stream: this._stream,
      onStream: (peer, stream) => this._onStream(peer, stream),
      onFull: () => say(byId("call-alert"), "Four people see and hear each other here already. You are followed, but not seen."),
      onReplaced: () => this.leave("This conversation goes on in another window of yours."),
    });
    if (captions) {
      this._captions = new Captions(
        () => this._whip.nowMs(),
        (startMs, endMs, text, language) => this._whip.caption(startMs, endMs, text, language),
      );
    }
    this._card(this._me);
    for (const [id, person] of this.conversation.people) this._card(id).show(person, this.conversation.labels, 0);
    byId("call-room").focus();
    this._whip.start();
    this._mesh.start();
  }

  setPaused(paused) {
    this._paused = paused;
    for (const track of this._tracked) track.enabled = !paused;
    if (paused) this._captions?.stop();
    else if (this._state === "live") this._captions?.start();
    byId("pause").setAttribute("aria-pressed", String(paused));
    byId("pause").textContent = paused ? "Go on" : "Pause tracking";
    byId("say-text").disabled = paused;
    this._showState();
  }

  get paused() {
    return this._paused;
  }

  type(text) {
    const endMs = this._whip.nowMs();
    return !this._paused && this._whip.caption(endMs - Math.min(10_000, TYPED_MS * text.length), endMs, text, null);
  }

  // `note` says why, where it was not the user's wish.
  async leave(note = "Camera and microphone are off.") {
    this._captions?.stop();
    this._feed.stop();
    this._mesh.stop();
    clearTimeout(this._announcing);
    clearTimeout(this._gone);
    for (const track of [...this._tracked, ...(this._stream?.getTracks() ?? [])]) track.stop();
    byId("call").hidden = true;
    await this._whip.stop();
    this._onLeft(note);
  }

  export(kind) {
    const name = `${this._room}-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}`;
    if (kind === "csv") download(`${name}.csv`, "text/csv;charset=utf-8", csv(this.conversation));
    else download(`${name}.jsonl`, "application/x-ndjson", jsonl(this.conversation));
  }

  // ---- what comes in

  _onState(state, detail) {
    this._state = state;
    this._showState();
    say(byId("call-alert"), state === "refused" ? `The server refuses: ${detail}` : null);
    if (state !== "live") {
      this._captions?.stop();
      return;
    }
    this._feed.start(); // there is a session now
    if (!this._paused) this._captions?.start();
  }

  _showState() {
    const state = this._state === "live" && this._paused ? "paused" : this._state;
    byId("status").dataset.state = state;
    byId("status").textContent = STATES[state];
  }

  _onStream(peer, stream) {
    this._streams.set(peer, stream);
    this._cards.get(peer)?.watch(stream);
  }

  _onEvent(event) {
    const { changed, fresh, reset } = this.conversation.apply(event);
    if (reset) {
      for (const card of this._cards.values()) card.node.remove();
      this._cards.clear();
      this._card(this._me);
    }
    byId("call-purpose").textContent = this.conversation.purpose ? `Purpose: ${this.conversation.purpose}.` : "";
    if (changed === null) return;
    const person = this.conversation.people.get(changed);
    const lengthMs = this._lengthMs();
    this._card(changed).show(person, this.conversation.labels, lengthMs);
    for (const [id, card] of this._cards) if (id !== changed) card.stretch(lengthMs);
    if (this._following) this._scroll(Number.MAX_SAFE_INTEGER);
    if (fresh) this._onEmotion(fresh);
    if (changed === this._me) this._stillThere(person);
  }

  _stillThere(me) {
    clearTimeout(this._gone);
    if (!me.present && this._state === "live") this._gone = setTimeout(() => this._whip.reconnect(), GONE_MS);
  }

  _onEmotion(event) {
    byId("empty").hidden = true;
    const median = this.conversation.medianLatencyMs();
    byId("figures").textContent = median === null ? "" : `answers after ${seconds(median)} (median)`;
    if (byId("legend").children.length !== this.conversation.labels.length) this._showLegend();
    const best = strongest(event.emotions);
    const what = event.label ? `${event.label}, ${percent(best.probability)}` : "unsure";
    this._announce(`${personName(event.participant_id)}: ${what}`);
  }

  _announce(text) {
    clearTimeout(this._announcing); // the newest is what counts
    const waitMs = Math.max(0, this._announceAt - performance.now());
    this._announcing = setTimeout(() => {
      byId("live").textContent = text;
      this._announceAt = performance.now() + ANNOUNCE_MS;
    }, waitMs);
  }

  _showLegend() {
    const labels = this.conversation.labels;
    byId("legend").replaceChildren(
      ...labels.map((name) => el("li", {}, el("span", { class: `dot ${hue(name, labels)}` }), title(name))),
    );
  }

  // ---- cards

  _card(id) {
    let card = this._cards.get(id);
    if (card === undefined) {
      card = new Card(id, id === this._me, (track) => this._onScroll(track));
      card.watch(this._streams.get(id) ?? null);
      this._cards.set(id, card);
      byId("people").append(card.node);
    }
    return card;
  }

  _lengthMs() {
    const ends = [...this.conversation.people.values()].map((person) => person.latest?.end_ms ?? 0);
    return Math.max(0, ...ends);
  }

  // Everybody's timeline shows the same stretch of time; who scrolls back is not dragged to the end again.
  _onScroll(track) {
    this._following = track.scrollLeft + track.clientWidth >= track.scrollWidth - 8;
    this._scroll(track.scrollLeft);
  }

  _scroll(left) {
    for (const card of this._cards.values()) card.scrollTo(left);
  }
}

async function capture(camera) {
  if (!navigator.mediaDevices) throw new Error("A browser gives camera and microphone to https:// or localhost pages alone.");
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: false, autoGainControl: true },
      video: camera ? { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 15, max: 30 } } : false,
    });
  } catch (error) {
    const what = camera ? "Camera and microphone" : "The microphone";
    if (error.name === "NotAllowedError") throw new Error(`${what} may not be used: allow it in the address bar, then join again.`);
    if (error.name === "NotFoundError") throw new Error(`${what} could not be found: choose something else to send.`);
    throw new Error(`${what} cannot be used just now (${error.name}): another program may hold it.`);
  }
}
