// The page of the room: one WebSocket, one list of lines. What comes from the room is only ever set as text.
"use strict";

const $ = (id) => document.getElementById(id);
const MAX_LINES = 500; // a long lesson must not fill a phone's memory
let socket = null;

$("code").value = decodeURIComponent(location.hash.slice(1)); // a scanned QR code brings the room code along
history.replaceState(null, "", location.pathname);

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
  const query = new URLSearchParams({ name: $("name").value, code: $("code").value }).toString();
  const url = new URL("room?" + query, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  let opened = false;
  $("state").textContent = "connecting";
  socket = new WebSocket(url);
  socket.onopen = () => {
    opened = true;
    $("lines").replaceChildren();
    $("state").textContent = "in the room";
    show("inside");
  };
  socket.onmessage = (message) => add(message.data);
  socket.onclose = async (close) => {
    const why = opened ? close.reason || `closed with ${close.code}` : await whyRefused(query);
    $("state").textContent = opened ? `left the room: ${why}` : `not let in: ${why}`;
    show("enter");
  };
}

function say(event) {
  event.preventDefault();
  if ($("text").value === "" || socket.readyState !== WebSocket.OPEN) return;
  socket.send($("text").value);
  $("text").value = "";
  $("text").focus();
}

$("enter").addEventListener("submit", enter);
$("say").addEventListener("submit", say);
$("leave").addEventListener("click", () => socket.close(1000, "goodbye"));
