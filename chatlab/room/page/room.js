// The page of the room: one WebSocket, one list of lines. What comes from the room is only ever set as text, never as
// markup. `WORDS`, the translation of each text here, is in words.js, which the server makes.
"use strict";

const $ = (id) => document.getElementById(id);
const MAX_LINES = 500; // a long lesson must not fill a phone's memory
const SILENCE = 25000; // ms without a message from the room, which sends a heart-beat every 10 s
const CHECK = 5000; // ms between two checks for silence
const PATIENCE = 15000; // ms for the room to accept the connection
let leave = null; // leaves the room, or stops trying to come in; null outside
let socket = null;
let unconfirmed = []; // texts sent that have not come back from the room
let me = ""; // the name that the room gave this visitor

$("code").value = codeFrom(location.hash); // a scanned QR code brings the room code along
history.replaceState(null, "", location.pathname);

// The text in the page's language, with `values` in place of its {placeholders}: strings here, elements in `parts`.
const _ = (message, values = {}) => pieces(message, values).join("");

function pieces(message, values) {
  const translated = WORDS[message] ?? message;
  // Every second piece is the name of a placeholder.
  return translated.split(/\{(\w+)\}/).map((piece, i) => (i % 2 ? values[piece] : piece)).filter((piece) => piece !== "");
}

function codeFrom(hash) {
  try { return decodeURIComponent(hash.slice(1)); } catch { return ""; }
}

function show(id) {
  $("enter").hidden = id !== "enter";
  $("inside").hidden = id !== "inside";
  $(id === "enter" ? "name" : "text").focus();
}

// A text as the room relays it: one line. chatlab/room/lines.py has the same rule.
function oneLine(text) {
  return text.replace(/\r\n|[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]/g, "\u21b5").replace(/\t/g, " ")
    .replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "").replace(/[\x00-\x1f\x7f-\x9f]/g, "\ufffd");
}

// The parts of a line, with user text only in its own elements. The kinds of line differ by more than colour.
function parts({ kind, from, text }) {
  if (kind === "notice") return ["* ", text];
  if (kind === "error") return ["! ", text];
  const said = written(text, "said");
  if (from === undefined) return pieces("Server received: {text}", { text: said });
  return pieces("Server received from {name}: {text}", { name: written(from, "from"), text: said });
}

function written(text, name) {
  const part = document.createElement("bdi"); // isolates its direction from the rest of the line
  part.className = name;
  part.textContent = text;
  return part;
}

function add(line) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const item = document.createElement("li");
  item.className = line.kind;
  item.append(...parts(line));
  $("lines").append(item);
  while ($("lines").children.length > MAX_LINES) $("lines").firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight; // do not scroll while someone reads further up
}

// Browsers do not tell a page why a handshake was refused; asked without an upgrade, the room answers in plain text.
async function whyRefused(query) {
  try {
    const answer = await fetch("room?" + query);
    return answer.status === 426 ? _("the connection broke off") : (await answer.text()).trim();
  } catch {
    return _("the room does not answer");
  }
}

function enter(event) {
  event.preventDefault();
  if (leave !== null) return; // on the way in already
  const query = new URLSearchParams({ name: $("name").value, code: $("code").value }).toString();
  const url = new URL(`room?${query}&beats=yes&parts=yes`, document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  const mine = socket = new WebSocket(url);
  let timer = setTimeout(() => leave(_("not let in: {reason}", { reason: _("the room does not answer") })), PATIENCE);
  $("state").textContent = _("connecting");
  // Do not wait for the closing handshake: a connection that the network dropped silently stays "open" for a long time.
  leave = (why) => {
    clearTimeout(timer);
    mine.onopen = mine.onmessage = mine.onclose = null;
    mine.close(1000, "goodbye");
    leave = null;
    $("state").textContent = giveBack()
      ? _("{reason}; what may not have arrived is in the message box again", { reason: why })
      : why;
    show("enter");
  };
  mine.onopen = () => {
    clearTimeout(timer);
    const received = watchOver(() => leave(_("left the room: {reason}", { reason: _("the connection is lost") })));
    timer = received.timer;
    mine.onmessage = (message) => { received(); receive(message.data); };
    mine.onclose = (close) => {
      const reason = close.reason || _("closed with {code}", { code: close.code });
      leave(_("left the room: {reason}", { reason }));
    };
    $("lines").replaceChildren();
    $("state").textContent = _("in the room");
    show("inside");
  };
  mine.onclose = async () => {
    const why = await whyRefused(query);
    if (socket === mine) leave?.(_("not let in: {reason}", { reason: why }));
  };
}

// Call `lost` after too long a silence. Call the returned function for each message; it carries its timer.
function watchOver(lost) {
  let [receivedAt, checkedAt, excused] = [Date.now(), Date.now(), false];
  const received = () => { receivedAt = Date.now(); excused = false; };
  received.timer = setInterval(() => {
    const late = Date.now() - checkedAt > 2 * CHECK;
    checkedAt = Date.now();
    if (checkedAt - receivedAt <= SILENCE) return;
    // A page that was asleep runs this check before it receives what has arrived: check once more.
    if (late && !excused) excused = true;
    else lost();
  }, CHECK);
  return received;
}

function receive(data) {
  if (data === "") return; // a heart-beat
  const line = JSON.parse(data);
  if (line.kind === "you") {
    me = line.name;
    return;
  }
  const confirmed = line.kind === "text" && line.from === me ? unconfirmed.indexOf(line.text) : -1;
  if (confirmed >= 0) unconfirmed.splice(confirmed, 1);
  else if (line.kind === "error" && line.text.startsWith("not sent")) unconfirmed.shift();
  add(line);
}

// What the room has not sent back may be lost: put it back into the message box, so that its author decides.
function giveBack() {
  const texts = unconfirmed;
  unconfirmed = [];
  $("text").value = [...texts, $("text").value].filter(Boolean).join(" ");
  return texts.length > 0;
}

function say(event) {
  event.preventDefault();
  if ($("text").value === "" || socket.readyState !== WebSocket.OPEN) return;
  const text = oneLine($("text").value);
  socket.send(text);
  unconfirmed.push(text);
  $("text").value = "";
  $("text").focus();
}

$("enter").addEventListener("submit", enter);
$("say").addEventListener("submit", say);
$("leave").addEventListener("click", () => leave(_("left the room: {reason}", { reason: _("goodbye") })));
