// The page of the room: one WebSocket, one list of lines. What comes from the room is only ever set as text.
"use strict";

const $ = (id) => document.getElementById(id);
const MAX_LINES = 500; // a long lesson must not fill a phone's memory
const SILENCE = 25000; // ms without a word from the room, which sends a heart-beat every 10 s
const LOOK = 5000; // ms between two looks at that
const PATIENCE = 15000; // ms for the room to let somebody in
let leave = null; // leaves the room, or stops trying to come in; null outside
let socket = null;
let unconfirmed = []; // texts that were sent, and have not come back from the room
let me = ""; // the name that the room has given

$("code").value = codeFrom(location.hash); // a scanned QR code brings the room code along
history.replaceState(null, "", location.pathname);

function codeFrom(hash) {
  try { return decodeURIComponent(hash.slice(1)); } catch { return ""; }
}

function show(id) {
  $("enter").hidden = id !== "enter";
  $("inside").hidden = id !== "inside";
  $(id === "enter" ? "name" : "text").focus();
}

// A text as the room passes it on: one line. chatlab/room/lines.py has the same rule.
function oneLine(text) {
  return text.replace(/\r\n|[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]/g, "\u21b5").replace(/\t/g, " ")
    .replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "").replace(/[\x00-\x1f\x7f-\x9f]/g, "\ufffd");
}

// Each part of a line in its place: what somebody has written is nowhere else. They differ by more than colour.
function parts({ kind, from, text }) {
  if (kind === "notice") return ["* ", text];
  if (kind === "error") return ["! ", text];
  return [...(from === undefined ? ["Server received: "] : ["Server received from ", written(from, "from"), ": "]), written(text, "said")];
}

function written(text, name) {
  const part = document.createElement("bdi"); // whatever its direction, the rest of the line keeps its own
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
  if (atEnd) log.scrollTop = log.scrollHeight; // who reads back further up is left in peace
}

// Browsers do not tell a page why a handshake was refused; asked without an upgrade, the room says it in plain text.
async function whyRefused(query) {
  try {
    const answer = await fetch("room?" + query);
    return answer.status === 426 ? "the connection broke off" : (await answer.text()).trim();
  } catch {
    return "the room does not answer";
  }
}

function enter(event) {
  event.preventDefault();
  if (leave !== null) return; // on the way in already
  const query = new URLSearchParams({ name: $("name").value, code: $("code").value }).toString();
  const url = new URL(`room?${query}&beats=yes&parts=yes`, document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  const mine = socket = new WebSocket(url);
  let timer = setTimeout(() => leave("not let in: the room does not answer"), PATIENCE);
  $("state").textContent = "connecting";
  // At once, without the other end: a connection that the network has dropped without a word stays "open" for long.
  leave = (why) => {
    clearTimeout(timer);
    mine.onopen = mine.onmessage = mine.onclose = null;
    mine.close(1000, "goodbye");
    leave = null;
    $("state").textContent = giveBack() ? `${why}; what may not have arrived is in the message box again` : why;
    show("enter");
  };
  mine.onopen = () => {
    clearTimeout(timer);
    const heard = watchOver(() => leave("left the room: the connection is lost"));
    timer = heard.timer;
    mine.onmessage = (message) => { heard(); hear(message.data); };
    mine.onclose = (close) => leave(`left the room: ${close.reason || `closed with ${close.code}`}`);
    $("lines").replaceChildren();
    $("state").textContent = "in the room";
    show("inside");
  };
  mine.onclose = async () => {
    const why = await whyRefused(query);
    if (socket === mine) leave?.(`not let in: ${why}`);
  };
}

// Call `lost` after too long a silence; the answer is to be called when something is heard, and names its timer.
function watchOver(lost) {
  let [heardAt, lookedAt, spared] = [Date.now(), Date.now(), false];
  const heard = () => { heardAt = Date.now(); spared = false; };
  heard.timer = setInterval(() => {
    const late = Date.now() - lookedAt > 2 * LOOK;
    lookedAt = Date.now();
    if (lookedAt - heardAt <= SILENCE) return;
    // A page that has slept looks before it hears what arrived meanwhile: it looks once more.
    if (late && !spared) spared = true;
    else lost();
  }, LOOK);
  return heard;
}

function hear(data) {
  if (data === "") return; // a heart-beat
  const line = JSON.parse(data);
  if (line.kind === "you") {
    me = line.name;
    return;
  }
  const told = line.kind === "text" && line.from === me ? unconfirmed.indexOf(line.text) : -1;
  if (told >= 0) unconfirmed.splice(told, 1);
  else if (line.kind === "error" && line.text.startsWith("not sent")) unconfirmed.shift();
  add(line);
}

// What the room has not sent back may be lost: whoever wrote it has it again, and decides.
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
$("leave").addEventListener("click", () => leave("left the room: goodbye"));
