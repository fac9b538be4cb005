// What the events call things → what people call them.

export const SENSES = { text: "Words", audio: "Voice", visual: "Face" };

const REASONS = {
  no_video: "no camera",
  text_only: "by words alone",
  no_frames: "no pictures",
  no_face: "no face in view",
  blurred: "picture too blurred",
  no_audio: "no microphone",
  too_short: "too short",
  silent: "too quiet",
  no_caption: "no captions",
  no_model: "not recognised here",
  no_speech: "no words recognised",
  low_quality: "too unsure of the words",
  media_expired: "came too late",
  deadline: "took too long",
  not_in_model: "not part of the model",
  extractor_mismatch: "not fit for the model",
  closed: "session closed",
};

export const reason = (code) => REASONS[code] ?? code.replaceAll("_", " ");

// Who reads `anna-3f9a` should see "anna": the end only keeps two Annas apart.
export const personName = (id) => id.replace(/-[0-9a-f]{4}$/, "").replaceAll("_", " ");

const KNOWN = ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"];

// The class that colours an emotion; another checkpoint may bring other names.
export function hue(name, labels) {
  return KNOWN.includes(name) ? `e-${name}` : `e-other-${labels.indexOf(name) % 7}`;
}

export const title = (name) => name.charAt(0).toUpperCase() + name.slice(1);
