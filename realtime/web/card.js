// One participant: picture, current emotion, what each sense said, and the timeline of all utterances.

import { strongest } from "./conversation.js";
import { clock, el, percent, seconds } from "./dom.js";
import { hue, personName, reason, SENSES, title } from "./words.js";

const PX_PER_S = 12;
const MIN_BAR_PX = 10;
const TICK_S = 15;

export class Card {
  // onScroll(left) tells that a person moved the timeline; all cards show the same stretch of time.
  constructor(id, isMe, onScroll) {
    this._labels = [];
    this._bars = new Map(); // utterance id → button
    this._selected = null; // utterance id that is pointed at; null = the latest
    this._person = null;
    this._scrolledTo = 0;
    const name = personName(id);
    this.video = el("video", { playsinline: "", autoplay: "", "aria-label": `Picture of ${name}` });
    this.video.muted = isMe;
    this.video.hidden = true;
    this._initial = el("span", { class: "initial", "aria-hidden": "true" }, name.charAt(0).toUpperCase());
    this._activity = el("span", { class: "activity" });
    this._emotion = el("p", { class: "emotion" }, "–");
    this._ranking = el("ul", { class: "ranking", "aria-label": "Most probable emotions" });
    this._lately = el("p", { class: "lately" });
    this._after = el("p", { class: "after" });
    this._bands = el("div", { class: "bands", role: "group", "aria-label": `Utterances of ${name}; arrow keys move` });
    this._ticks = el("div", { class: "ticks", "aria-hidden": "true" });
    this._track = el("div", { class: "track" }, el("div", { class: "rail" }, this._bands, this._ticks));
    this._detail = el("div", { class: "detail" });
    const heading = el("h2", {}, name, ...(isMe ? [el("span", { class: "you" }, "you")] : []));
    this.node = el(
      "article",
      { class: isMe ? "person me" : "person", "data-participant": id, "aria-label": name },
      el("div", { class: "stage" }, this.video, this._initial),
      el("div", { class: "now" }, el("div", { class: "who" }, heading, this._activity), this._emotion, this._ranking, this._lately, this._after),
      el("div", { class: "history" }, this._track, this._detail),
    );
    this._track.addEventListener("scroll", () => {
      if (Math.abs(this._track.scrollLeft - this._scrolledTo) > 1) onScroll(this._track); // a person's doing
    });
    this._bands.addEventListener("keydown", (event) => this._onKey(event));
  }

  // Shows a stream, or the initial where there is no picture.
  watch(stream) {
    this.video.srcObject = stream;
    const picture = stream?.getVideoTracks().some((track) => track.readyState === "live") ?? false;
    this.video.hidden = !picture;
    this._initial.hidden = picture;
  }

  scrollTo(left) {
    this._track.scrollLeft = left;
    this._scrolledTo = this._track.scrollLeft; // as far as it went
  }

  show(person, labels, lengthMs) {
    this._person = person;
    this._labels = labels;
    this.node.classList.toggle("gone", !person.present);
    this._activity.textContent = person.speaking ? "speaking" : person.present ? "" : "left";
    this._activity.classList.toggle("on", person.speaking);
    this._showLatest(person.latest);
    this._showLately(person.lately);
    this._showBars(person);
    this.stretch(lengthMs);
    this._showDetail();
  }

  // The rail is as long as the session for everybody.
  stretch(lengthMs) {
    const lengthS = Math.ceil(lengthMs / 1000);
    this._track.firstChild.style.width = `${lengthS * PX_PER_S + 24}px`;
    while (this._ticks.children.length * TICK_S <= lengthS) {
      const at = this._ticks.children.length * TICK_S;
      const tick = el("span", {}, clock(at * 1000));
      tick.style.left = `${at * PX_PER_S}px`;
      this._ticks.append(tick);
    }
  }

  _showLatest(event) {
    if (event === null) return;
    const best = strongest(event.emotions);
    this._emotion.className = `emotion ${event.label ? hue(best.name, this._labels) : "unsure"}`;
    this._emotion.replaceChildren(event.label ? title(event.label) : "Unsure");
    const first = [...event.emotions].sort((a, b) => b.probability - a.probability).slice(0, 3);
    this._ranking.replaceChildren(
      ...first.map(({ name, probability }) => {
        const bar = el("span", { class: `meter ${hue(name, this._labels)}` });
        bar.style.setProperty("--share", probability);
        return el("li", {}, el("span", {}, name), bar, el("span", { class: "figure" }, percent(probability)));
      }),
    );
    this._after.textContent = event.latency_ms ? `${seconds(event.latency_ms.total)} after the last word` : "";
  }

  // The running average: slower than the utterances, and steadier.
  _showLately(event) {
    if (event === null) return;
    const { probability } = event.emotions.find(({ name }) => name === event.label);
    this._lately.textContent = `Lately: ${event.label} ${percent(probability)}`;
  }

  _showBars(person) {
    for (const [id, bar] of this._bars) {
      if (!person.utterances.has(id)) {
        bar.remove();
        this._bars.delete(id);
      }
    }
    for (const [id, said] of person.utterances) {
      let bar = this._bars.get(id);
      if (bar === undefined) {
        bar = this._newBar(id);
        this._bars.set(id, bar);
        this._bands.append(bar);
      }
      this._showBar(bar, said);
    }
    this._focusable(this._selected ?? [...this._bars.keys()].at(-1));
  }

  _newBar(id) {
    const bar = el("button", { type: "button", class: "bar", tabindex: "-1", "data-utterance": id });
    const point = () => this._select(id);
    bar.addEventListener("mouseenter", point);
    bar.addEventListener("focus", point);
    bar.addEventListener("click", point);
    bar.addEventListener("mouseleave", () => document.activeElement !== bar && this._select(null));
    bar.addEventListener("blur", () => this._select(null));
    return bar;
  }

  _showBar(bar, said) {
    const endMs = said.endMs ?? said.startMs;
    bar.style.left = `${(said.startMs / 1000) * PX_PER_S}px`;
    bar.style.width = `${Math.max(MIN_BAR_PX, ((endMs - said.startMs) / 1000) * PX_PER_S - 2)}px`;
    const event = said.emotion;
    bar.classList.toggle("pending", event === null);
    if (event === null) {
      bar.setAttribute("aria-label", `${clock(said.startMs)}, not judged yet`);
      return;
    }
    if (bar.dataset.revision === String(event.revision)) return;
    bar.dataset.revision = event.revision;
    bar.classList.toggle("provisional", !event.is_final);
    bar.classList.toggle("unsure", event.abstained);
    bar.setAttribute("aria-label", this._spoken(event));
    bar.replaceChildren(
      ...event.emotions.map(({ name, probability }) => {
        const band = el("span", { class: hue(name, this._labels) });
        band.style.flexGrow = probability;
        return band;
      }),
    );
  }

  _spoken(event) {
    const best = strongest(event.emotions);
    const what = event.label ?? `unsure, perhaps ${best.name}`;
    return `${clock(event.start_ms)} to ${clock(event.end_ms)}, ${what}, ${percent(best.probability)}`;
  }

  _select(id) {
    this._selected = id;
    if (id !== null) this._focusable(id);
    this._showDetail();
  }

  _focusable(id) {
    for (const [other, bar] of this._bars) bar.tabIndex = other === id ? 0 : -1;
  }

  _onKey(event) {
    const ids = [...this._bars.keys()];
    const at = ids.indexOf(event.target.dataset.utterance);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: ids.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    this._bars.get(ids[to])?.focus();
  }

  _showDetail() {
    const event = this._selected ? this._person?.utterances.get(this._selected)?.emotion : this._person?.latest;
    for (const [id, bar] of this._bars) bar.classList.toggle("selected", id === event?.utterance_id);
    if (!event) {
      this._detail.replaceChildren();
      return;
    }
    const best = strongest(event.emotions);
    const when = `${clock(event.start_ms)} – ${clock(event.end_ms)}`;
    const verdict = `${event.label ? title(event.label) : `Unsure, perhaps ${best.name}`} ${percent(best.probability)}`;
    const notes = [when, verdict, event.is_final ? "" : "may be revised"].filter(Boolean);
    this._detail.replaceChildren(
      el("p", { class: event.text ? "said" : "said none" }, event.text ?? `No words: ${this._why(event, "text")}`),
      el("p", { class: "when" }, notes.join(" · ")),
      el("dl", { class: "views" }, ...Object.keys(SENSES).map((sense) => this._view(event.modalities[sense], sense))),
    );
  }

  _why(event, sense) {
    return reason(event.modalities[sense]?.reason ?? "not sent");
  }

  _view(modality, sense) {
    const name = el("dt", {}, SENSES[sense]);
    if (!modality?.used) {
      return el("div", { class: "view missing" }, name, el("dd", {}, reason(modality?.reason ?? "not sent")));
    }
    const best = strongest(modality.emotions);
    const lost = modality.lost_ms ? `, ${seconds(modality.lost_ms)} lost` : "";
    const dot = el("span", { class: `dot ${hue(best.name, this._labels)}` });
    return el("div", { class: "view" }, name, el("dd", {}, dot, `${best.name} ${percent(best.probability)}${lost}`));
  }
}
