// Names of rooms and visitors, in any script. The rule for rooms is chatlab/naming.py's, in the browser's Unicode rather
// than Python's: the two change together. Where they still disagree, the server decides,
// and the page handles its refusal (link.js).

const LONGEST = 64; // characters
const ROOM = /^(?!\p{M})[\p{L}\p{M}\p{N}_-]+$/u;
// Letters and marks that are invisible: fillers, the grapheme joiner, variation selectors.
const INVISIBLE = /[\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufe00-\ufe0f\u{e0100}-\u{e01ef}]/u;
// The joiners, where a script needs them: Arabic, Syriac, N'Ko, India's, Thai, Lao, Tibetan, Burmese; Khmer, Mongolian.
const JOINER = /([\u0600-\u109f\u1780-\u18af])[\u200c\u200d](?=[\u0600-\u109f\u1780-\u18af])/g;

// One spelling for what looks the same: a letter and its mark typed on one system, the letter with it on another.
export const spelled = (text) => text.trim().normalize("NFC");

// Return the fault of a room's name, already normalized by `spelled`, as a key of words.js; "" if it has none.
export function faultIn(room) {
  if (!ROOM.test(room.replace(JOINER, "$1")) || INVISIBLE.test(room)) return "bad-room";
  return Array.from(room).length > LONGEST ? "long-room" : "";
}

// A visitor's name, cut to the length that the server accepts.
export const visitor = (text) => Array.from(spelled(text)).slice(0, LONGEST).join("").trim();
