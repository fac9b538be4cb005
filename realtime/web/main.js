// The page: which room, the lobby, the call, and what comes after it.

import { Call } from "./call.js";
import { Conversation } from "./conversation.js";
import { byId } from "./dom.js";
import { Lobby } from "./lobby.js";

const ROOM = /^[A-Za-z0-9_.-]{1,64}$/;
const room = new URLSearchParams(location.search).get("room");
const token = new URLSearchParams(location.hash.slice(1)).get("token"); // the fragment never leaves the browser

let call = null;
let choices = null;

if (room !== null && ROOM.test(room)) enter();
else choose();

function choose() {
  byId("choose").hidden = false;
  byId("choose-room").focus();
  byId("choose-form").addEventListener("submit", (event) => {
    event.preventDefault();
    location.assign(`/?${new URLSearchParams({ room: byId("choose-room").value })}${location.hash}`);
  });
}

function enter() {
  document.title = `${room} · cmath-stream`;
  byId("name").value = sessionStorage.getItem("cmath-stream:name") ?? "";
  new Lobby(room, token, join).show();
  byId("pause").addEventListener("click", () => call.setPaused(!call.paused));
  byId("leave").addEventListener("click", () => call.leave());
  byId("rejoin").addEventListener("click", async () => {
    try {
      await begin(call.conversation, call.lastId);
    } catch (error) {
      byId("left-note").textContent = error.message;
    }
  });
  for (const [kind, ids] of Object.entries({ jsonl: ["export-jsonl", "left-jsonl"], csv: ["export-csv", "left-csv"] })) {
    for (const id of ids) {
      byId(id).addEventListener("click", () => {
        byId("export-menu").open = false;
        call.export(kind);
      });
    }
  }
  byId("export-menu").addEventListener("keydown", ({ key, currentTarget }) => {
    if (key === "Escape") currentTarget.open = false;
  });
  byId("say").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("say-text").value.trim();
    if (text && call.type(text)) byId("say-text").value = "";
  });
  addEventListener("pagehide", () => call?.leave());
}

async function join(chosen) {
  choices = chosen;
  sessionStorage.setItem("cmath-stream:name", chosen.name);
  await begin(new Conversation(), "0");
}

async function begin(conversation, lastId) {
  const next = new Call({ room, token, participant: participant(choices.name), conversation, lastId, onLeft: left });
  await next.start(choices);
  byId("left").hidden = true;
  call = next;
  call.setPaused(false);
}

function left(note) {
  byId("left-note").textContent = note;
  byId("left").hidden = false;
  byId("left-title").focus();
}

// The same person in the same tab is the same participant, so that a reload continues the conversation. A token
// that names its holder decides.
function participant(name) {
  const named = subject(token);
  if (named !== null) return named;
  const key = `cmath-stream:participant:${room}`;
  const plain = name.normalize("NFKD").replace(/[^A-Za-z0-9_.-]+/g, "_").replace(/^_+|_+$/g, "").slice(0, 40) || "guest";
  const known = sessionStorage.getItem(key);
  if (known?.replace(/-[0-9a-f]{4}$/, "") === plain) return known;
  const end = crypto.getRandomValues(new Uint16Array(1))[0].toString(16).padStart(4, "0");
  sessionStorage.setItem(key, `${plain}-${end}`);
  return `${plain}-${end}`;
}

// `sub` of a signed token; the server checks it, here it is only read.
function subject(token) {
  const [, claims, signature] = token?.split(".") ?? [];
  if (!signature) return null;
  try {
    return JSON.parse(atob(claims.replaceAll("-", "+").replaceAll("_", "/"))).sub ?? null;
  } catch {
    return null; // a static token that has dots in it
  }
}
