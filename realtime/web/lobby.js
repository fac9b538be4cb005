// Before anything is opened: a name, what to send, and the notice that has to be agreed to.

import { byId, say } from "./dom.js";
import { supported as captionsSupported } from "./captions.js";

export class Lobby {
  // onJoin({name, media, captions, purpose, consent}) → a promise; what it rejects with is shown.
  constructor(room, token, onJoin) {
    this._room = room;
    this._token = token;
    this._onJoin = onJoin;
    this._recorded = null; // not known yet: until then nobody can agree to anything
    byId("lobby-room").textContent = room;
    byId("agree").addEventListener("change", () => this._ready());
    byId("name").addEventListener("input", () => this._ready());
    for (const choice of document.getElementsByName("media")) choice.addEventListener("change", () => this._offer());
    byId("lobby-form").addEventListener("submit", (event) => this._submit(event));
    this._offer();
  }

  async show() {
    byId("lobby").hidden = false;
    this._ready();
    byId("name").focus();
    try {
      await this._ask();
    } catch {
      say(byId("lobby-alert"), "The server cannot be reached. Is it running?");
    }
  }

  // Who else is there, and what for: the purpose of a conversation under way is not ours to choose.
  async _ask() {
    const headers = this._token ? { Authorization: `Bearer ${this._token}` } : {};
    const answer = await fetch(`/v1/rooms/${encodeURIComponent(this._room)}`, { headers, cache: "no-store" });
    if (answer.status === 401) {
      const what = this._token ? "does not take the token of this link" : "wants a token";
      say(byId("lobby-alert"), `This server ${what}: open the link that it printed when it started, or ask for a new one.`);
      return;
    }
    if (!answer.ok) {
      say(byId("lobby-alert"), `The server refuses: ${(await answer.json()).detail}.`);
      return;
    }
    const { session_id: session, purpose, recorded } = await answer.json();
    byId("kept").hidden = !recorded;
    byId("not-kept").hidden = recorded;
    this._recorded = recorded;
    this._ready();
    byId("lobby-state").textContent = session
      ? "A conversation is under way in this room."
      : "Nobody is here yet: you begin a conversation.";
    if (session && purpose) {
      const select = byId("purpose");
      if (![...select.options].some((option) => option.value === purpose)) select.add(new Option(purpose, purpose));
      select.value = purpose;
      select.disabled = true;
    }
  }

  // Without a microphone there is nothing to caption; without a recogniser nothing that could.
  _offer() {
    byId("captions-choice").hidden = !captionsSupported || this._media() === "words";
  }

  _media() {
    return document.querySelector("input[name=media]:checked").value;
  }

  _ready() {
    byId("join").disabled = this._recorded === null || !byId("agree").checked || !byId("name").value.trim();
  }

  async _submit(event) {
    event.preventDefault();
    const media = this._media();
    byId("join").disabled = true;
    say(byId("lobby-alert"), null);
    try {
      await this._onJoin({
        name: byId("name").value.trim(),
        media,
        captions: captionsSupported && media !== "words" && byId("captions").checked,
        purpose: byId("purpose").value,
        consent: byId("notice").dataset.version + (this._recorded ? "-recorded" : ""),
      });
      byId("lobby").hidden = true;
    } catch (error) {
      say(byId("lobby-alert"), error.message);
    }
    this._ready();
  }
}
