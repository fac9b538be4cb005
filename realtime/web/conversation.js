// What the events say about a conversation: who is there, and each utterance in its highest revision.
// No DOM, no network: `apply` takes an event and says whom it changes.

const KEPT = 20_000; // events, for export

export class Conversation {
  constructor() {
    this.events = [];
    this.purpose = null;
    this.sessionId = null;
    this.people = new Map();
    this.labels = [];
    this.latencies = []; // of the last answers, ms
    this._seen = new Set();
  }

  // → {changed: participant id | null, fresh: emotion event | null, reset: boolean}
  apply(event) {
    const nothing = { changed: null, fresh: null, reset: false };
    if (this._seen.has(event.event_id)) return nothing;
    this._seen.add(event.event_id);
    this.events.push(event);
    if (this.events.length > KEPT) this._seen.delete(this.events.shift().event_id);
    let reset = false;
    if (event.type === "session.started") {
      reset = this.sessionId !== null && this.sessionId !== event.session_id;
      this.sessionId = event.session_id;
      this.purpose = event.purpose;
      if (reset) this.people.clear();
    }
    const id = event.participant_id;
    if (id === undefined) return { ...nothing, reset };
    const person = this._person(id);
    const fresh = this._told(person, event);
    return { changed: id, fresh, reset };
  }

  // Utterances of a person in the order of their times.
  static inOrder(person) {
    return [...person.utterances.values()].sort((a, b) => a.startMs - b.startMs);
  }

  medianLatencyMs() {
    const sorted = [...this.latencies].sort((a, b) => a - b);
    return sorted.length ? sorted[Math.floor(sorted.length / 2)] : null;
  }

  _person(id) {
    let person = this.people.get(id);
    if (person === undefined) {
      person = { id, present: false, speaking: false, utterances: new Map(), latest: null, lately: null };
      this.people.set(id, person);
    }
    return person;
  }

  _told(person, event) {
    const known = person.utterances.get(event.utterance_id);
    switch (event.type) {
      case "participant.joined":
        person.present = true;
        break;
      case "participant.left":
        person.present = person.speaking = false;
        break;
      case "utterance.started":
        person.speaking = true;
        person.utterances.set(event.utterance_id, { startMs: event.start_ms, endMs: null, emotion: null });
        break;
      case "utterance.ended":
        person.speaking = false;
        if (known) Object.assign(known, { startMs: event.start_ms, endMs: event.end_ms });
        break;
      case "utterance.dropped":
        person.utterances.delete(event.utterance_id);
        break;
      case "participant.state":
        person.lately = event;
        break;
      case "emotion.utterance":
        return this._felt(person, known, event);
    }
    return null;
  }

  _felt(person, known, event) {
    if (known?.emotion && known.emotion.revision >= event.revision) return null;
    this.labels = event.emotions.map((emotion) => emotion.name);
    const said = { startMs: event.start_ms, endMs: event.end_ms, emotion: event };
    person.utterances.set(event.utterance_id, said);
    if (!person.latest || person.latest.end_ms <= event.end_ms) person.latest = event;
    if (event.revision === 0 && event.latency_ms) {
      this.latencies.push(event.latency_ms.total);
      if (this.latencies.length > 20) this.latencies.shift();
    }
    return event;
  }
}

// The most probable emotion, whether or not the model stands by it.
export const strongest = (emotions) => emotions.reduce((a, b) => (b.probability > a.probability ? b : a));
