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

// "* " is a notice and "! " an error: chatlab/room.py says so. They differ by more than colour.
function kind(line) {
  return line.startsWith("* ") ? "notice" : line.startsWith("! ") ? "error" : "text";
}

function add(line) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const item = document.createElement("li");
  item.className = kind(line);
  item.textContent = line;
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
  const url = new URL(`room?${query}&beats=yes`, document.baseURI);
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

function hear(line) {
  if (line === "") return; // a heart-beat
  const told = unconfirmed.findIndex((text) => line.endsWith(`: ${text}`));
  if (told >= 0) unconfirmed.splice(told, 1);
  else if (line.startsWith("! not sent")) unconfirmed.shift();
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
  socket.send($("text").value);
  unconfirmed.push($("text").value);
  $("text").value = "";
  $("text").focus();
}

$("enter").addEventListener("submit", enter);
$("say").addEventListener("submit", say);
$("leave").addEventListener("click", () => leave("left the room: goodbye"));
