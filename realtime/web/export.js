// A conversation as a file: every event as it came, or a row for each utterance.

import { Conversation } from "./conversation.js";

const SENSES = ["text", "audio", "visual"];

export const jsonl = (conversation) => conversation.events.map((event) => `${JSON.stringify(event)}\n`).join("");

export function csv(conversation) {
  const labels = conversation.labels;
  const head = [
    "session_id", "participant_id", "utterance_id", "revision", "is_final", "start_ms", "end_ms", "label", "abstained",
    ...labels, ...SENSES.map((sense) => `${sense}_used`), ...SENSES.map((sense) => `${sense}_missing`),
    "latency_ms", "text",
  ];
  const emotions = [...conversation.people.values()]
    .flatMap(Conversation.inOrder)
    .flatMap((said) => said.emotion ?? [])
    .sort((a, b) => a.end_ms - b.end_ms || (a.participant_id < b.participant_id ? -1 : 1));
  return [head, ...emotions.map((event) => row(event, labels))].map((cells) => `${cells.map(cell).join(",")}\r\n`).join("");
}

function row(event, labels) {
  const share = Object.fromEntries(event.emotions.map(({ name, probability }) => [name, probability]));
  return [
    event.session_id, event.participant_id, event.utterance_id, event.revision, event.is_final, event.start_ms,
    event.end_ms, event.label, event.abstained, ...labels.map((label) => share[label]),
    ...SENSES.map((sense) => event.modalities[sense]?.used ?? false),
    ...SENSES.map((sense) => event.modalities[sense]?.reason),
    event.latency_ms?.total, event.text,
  ];
}

function cell(value) {
  let text = String(value ?? "");
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`; // a spreadsheet would run it
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
