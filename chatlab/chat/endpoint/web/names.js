// Names of rooms and visitors, in any script. The rule for rooms is chatlab/naming.py's, in the browser's Unicode rather
// than Python's: the two change together. Where they still disagree, the server has the last word, and the page lives
// with its refusal (link.js).

const LONGEST = 64; // characters
const ROOM = /^(?!\p{M})[\p{L}\p{M}\p{N}_-]+$/u;
// Letters and marks that show nothing: fillers, the grapheme joiner, variation selectors.
const INVISIBLE = /[\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufe00-\ufe0f\u{e0100}-\u{e01ef}]/u;
// The joiners, where a script needs them: Arabic, Syriac, N'Ko, India's, Thai, Lao, Tibetan, Burmese; Khmer, Mongolian.
const JOINER = /([\u0600-\u109f\u1780-\u18af])[\u200c\u200d](?=[\u0600-\u109f\u1780-\u18af])/g;

// One spelling for what looks the same: a letter and its mark typed on one system, the letter with it on another.
export const spelled = (text) => text.trim().normalize("NFC");

// What is wrong with the name of a room, as a key of words.js; "" if nothing is. The name is as `spelled` gives it.
export function faultIn(room) {
  if (!ROOM.test(room.replace(JOINER, "$1")) || INVISIBLE.test(room)) return "bad-room";
  return Array.from(room).length > LONGEST ? "long-room" : "";
}

// A visitor's name, as long as the server takes it.
export const visitor = (text) => Array.from(spelled(text)).slice(0, LONGEST).join("").trim();
