// Words from the browser's own speech recognition. It tells no times: the first interim result of a phrase
// stands for its start, the last one before the final for its end.

const Recognition = globalThis.SpeechRecognition ?? globalThis.webkitSpeechRecognition;
const HEARD_LATE_MS = 500; // an interim result comes about so long after the word
const AGAIN_MS = 300;

export const supported = Recognition !== undefined;

export class Captions {
  // now() → ms on the caption clock; onCaption(startMs, endMs, text, language).
  constructor(now, onCaption) {
    this._now = now;
    this._onCaption = onCaption;
    this._startMs = null;
    this._lastMs = 0;
    this._wanted = false;
    this._recognition = null;
  }

  start() {
    this._wanted = true;
    if (this._recognition !== null) return;
    const recognition = (this._recognition = new Recognition());
    recognition.continuous = true;
    recognition.interimResults = true;
    recognition.lang = navigator.language;
    recognition.onresult = (event) => this._heard(event);
    recognition.onend = () => {
      this._recognition = null; // it ends by itself after a silence
      if (this._wanted) setTimeout(() => this._wanted && this.start(), AGAIN_MS);
    };
    recognition.onerror = ({ error }) => {
      if (["not-allowed", "service-not-allowed", "language-not-supported"].includes(error)) this._wanted = false;
    };
    recognition.start();
  }

  stop() {
    this._wanted = false;
    this._recognition?.stop();
  }

  _heard({ resultIndex, results }) {
    const nowMs = this._now();
    this._startMs ??= nowMs - HEARD_LATE_MS;
    for (let i = resultIndex; i < results.length; i++) {
      if (!results[i].isFinal) {
        this._lastMs = nowMs;
        continue;
      }
      const endMs = Math.max(this._startMs, this._lastMs || nowMs);
      const text = results[i][0].transcript.trim();
      if (text) this._onCaption(this._startMs, endMs, text, this._recognition?.lang);
      this._startMs = null;
      this._lastMs = 0;
    }
  }
}
