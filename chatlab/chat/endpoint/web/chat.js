// The page: it shows the events of the link, and passes the visitor's actions to it. User text is only ever set as
// `textContent`, so that markup in it stays text.

import { Link } from "./link.js";
import { faultIn, spelled, visitor } from "./names.js";
import { words } from "./words.js";

const PUBLIC = "public";
const TITLE = document.title;
const SIGNS = { online: "●", connecting: "◌", offline: "▲", refused: "▲", closed: "○" };
const MAX_SHOWN = 1000; // messages kept in a room's log
const MAX_NAMED = 3; // people named in an announcement of who came or left
const MAX_TAGS = 5000;
const HANDLE = /^[0-9a-f]{32}$/;
const NEWS = 3000; // ms for which arrivals and departures are collected into one announcement

const $ = (id) => document.getElementById(id);
const rooms = new Map(); // name -> { lines, shown, unread, called, people, count, byClientId }
const tags = new Map(); // the first digits of a handle -> the handle
const mentions = new Set(); // message ids: a notification may arrive before its message
let current = PUBLIC;
let language = navigator.language.startsWith("ko") ? "ko" : "en";
if (Object.keys(words).includes(recall("language"))) language = recall("language");
let me = "";
let state = ["closed", {}];
const news = { joined: new Map(), left: new Map(), timer: null }; // of the current room, not announced yet
let following = true; // the newest message is in view, and the log keeps scrolling to it

const link = new Link({
  state: (...now) => { state = now; showState(); },
  message: received,
  people: peopled,
  stored: (clientId) => settle(clientId, (line) => line.classList.remove("sending", "failed")),
  refused: (clientId, reason) => settle(clientId, (line) => failed(line, clientId, reason)),
  mentioned,
  barred: (room, reason) => { notice("barred", titleOf(room), reason); forget([room]); },
  crowded: (over, most) => { notice("too-many-rooms", most); forget(over); },
  rejected,
});

// --- Words ---

function say(key, ...values) {
  const word = words[language][key];
  return typeof word === "function" ? word(...values) : word;
}

function translate() {
  document.documentElement.lang = language;
  $("language").value = language;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = say(element.dataset.word);
  for (const element of document.querySelectorAll("[data-hint]")) element.placeholder = say(element.dataset.hint);
  showState();
  showRooms();
  showRoom();
}

function showState() {
  const [name, { fallback, reason }] = state;
  $("state").dataset.state = name;
  $("state").querySelector(".sign").textContent = SIGNS[name];
  $("state-text").textContent = say(name === "online" && fallback ? "online-fallback" : name, reason);
}

// --- Rooms ---

const titleOf = (room) => (room === PUBLIC ? say("public") : room);

function enter(room) {
  if (!rooms.has(room) && rooms.size >= link.mostRooms) {
    notice("too-many-rooms", link.mostRooms);
    return;
  }
  take(room);
  rememberRooms();
  open(room);
}

function take(room) {
  if (rooms.has(room)) return;
  const nothing = { lines: [], shown: new Set(), unread: 0, called: false, people: [], count: 0, byClientId: new Map() };
  rooms.set(room, nothing);
  link.enter(room);
}

function open(room) {
  current = room;
  forgetNews();
  $("people-news").textContent = "";
  Object.assign(rooms.get(room), { unread: 0, called: false });
  showRooms();
  showRoom();
  $("rooms").querySelector("[aria-current]").scrollIntoView({ block: "nearest", inline: "center" });
}

function leave(room) {
  if (room === PUBLIC) return;
  link.leave(room);
  forget([room]);
}

// The public room stays even if the server refuses it: the page has to show something.
function forget(names) {
  for (const name of names) if (name !== PUBLIC) rooms.delete(name);
  rememberRooms();
  if (rooms.has(current)) showRooms();
  else open(PUBLIC);
}

function showRooms() {
  $("rooms").replaceChildren(...Array.from(rooms, ([name, { unread, called }]) => {
    const button = element("button", { type: "button" }, titleOf(name));
    if (name === current) button.setAttribute("aria-current", "true");
    if (unread) button.append(" ", element("span", { className: "unread" }, say("unread", unread)));
    if (called) button.append(" ", element("span", { className: "called" }, say("called")));
    button.addEventListener("click", () => open(name));
    const item = element("li");
    item.append(button);
    return item;
  }));
}

function showRoom() {
  const room = rooms.get(current);
  if (!room) return;
  $("room-title").textContent = titleOf(current);
  $("leave").hidden = current === PUBLIC;
  $("log").replaceChildren(...room.lines);
  scrollToNewest();
  showPeople();
}

function peopled(room, people, count, { joined, left }) {
  Object.assign(rooms.get(room), { people, count });
  if (room !== current) return;
  showPeople();
  for (const each of joined) if (!news.left.delete(each.handle) && each.handle !== link.handle) news.joined.set(each.handle, each.name);
  for (const each of left) if (!news.joined.delete(each.handle)) news.left.set(each.handle, each.name);
  if (news.joined.size || news.left.size) news.timer ??= setTimeout(tellNews, NEWS);
}

// The list shows who came and left; for screen readers it is announced too, no more often than they can follow.
function tellNews() {
  const named = (people) => [...people.values()].slice(0, MAX_NAMED);
  const { joined, left } = news;
  $("people-news").textContent = [
    ...(joined.size ? [say("joined", named(joined), joined.size)] : []),
    ...(left.size ? [say("left", named(left), left.size)] : []),
  ].join(" ");
  forgetNews();
}

function forgetNews() {
  clearTimeout(news.timer);
  Object.assign(news, { joined: new Map(), left: new Map(), timer: null });
}

function showPeople() {
  const { people, count } = rooms.get(current);
  $("people-count").textContent = `(${count})`;
  const items = people.map(({ name, handle }) => {
    const item = element("li", {}, name);
    item.append(" ", tag(handle));
    if (handle === link.handle) item.append(" ", element("span", { className: "you" }, `(${say("you")})`));
    return item;
  });
  if (count > people.length) items.push(element("li", {}, say("more", count - people.length)));
  $("people").replaceChildren(...items);
}

// --- Messages ---

function received(room, message, { id, gap, afresh }) {
  const { byClientId, shown, lines } = rooms.get(room);
  const name = `${room}/${id}`;
  if (shown.has(name)) return; // a new history starts with messages that are already here
  const missed = afresh && lines.some((line) => line.dataset.id);
  const waiting = byClientId.get(message.client_id);
  if (waiting) {
    byClientId.delete(message.client_id);
    rooms.get(room).lines = rooms.get(room).lines.filter((line) => line !== waiting);
    waiting.remove();
  }
  if (gap || missed) add(room, element("p", { className: "gap" }, say("gap")));
  const line = lineOf(message.sender, message.content, message.time, message.from);
  line.dataset.id = name;
  line.classList.toggle("mention", mentions.delete(name));
  shown.add(name);
  add(room, line);
  if (document.hidden) document.title = `● ${TITLE}`;
  if (room !== current) {
    rooms.get(room).unread += 1;
    showRooms();
  }
}

function mentioned({ room, message_id: id }) {
  if (!rooms.has(room)) return;
  const line = rooms.get(room).lines.find((each) => each.dataset.id === id);
  if (line) line.classList.add("mention");
  else mentions.add(id);
  if (room === current) return;
  rooms.get(room).called = true;
  showRooms();
}

// Several guests may have one name, or names that look alike; nobody has another's handle. Its first digits tell them
// apart, and more of them once another handle with the same four has been seen.
function tag(handle) {
  let digits = 4;
  while (tags.has(handle.slice(0, digits)) && tags.get(handle.slice(0, digits)) !== handle) digits += 4;
  if (tags.size >= MAX_TAGS) tags.clear();
  tags.set(handle.slice(0, digits), handle);
  return element("span", { className: "tag" }, `#${handle.slice(0, digits)}`);
}

function lineOf(sender, content, time, handle) {
  const line = element("article");
  const head = element("p", { className: "head" });
  head.append(element("span", { className: "sender" }, sender), " ");
  if (HANDLE.test(handle)) head.append(tag(handle), " ");
  if (time) {
    const at = new Date(time);
    const today = at.toDateString() === new Date().toDateString();
    const shown = at.toLocaleString(language, today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
    head.append(element("time", { dateTime: time }, shown));
  }
  line.append(head, element("p", { className: "content" }, content));
  return line;
}

function add(room, line) {
  const { lines, shown } = rooms.get(room);
  // Messages still being sent stay below those that have arrived.
  const place = line.classList.contains("sending") ? -1 : lines.findIndex((each) => each.classList.contains("sending"));
  if (place < 0) lines.push(line);
  else lines.splice(place, 0, line);
  const gone = lines.length > MAX_SHOWN ? lines.shift() : null;
  shown.delete(gone?.dataset.id);
  if (room !== current) return;
  gone?.remove();
  $("log").insertBefore(line, lines[lines.indexOf(line) + 1] ?? null);
  if (following) scrollToNewest();
  else $("newest").hidden = false;
}

function send(content) {
  const clientId = link.send(current, content);
  const line = lineOf(me, content, "");
  line.classList.add("sending");
  line.dataset.content = content;
  line.firstChild.append(element("span", { className: "fate" }, say("sending")));
  rooms.get(current).byClientId.set(clientId, line);
  add(current, line);
  scrollToNewest();
}

function settle(clientId, change) {
  for (const { byClientId } of rooms.values()) {
    const line = byClientId.get(clientId);
    if (line) change(line);
  }
}

function failed(line, clientId, reason) {
  line.classList.add("failed");
  const fate = line.querySelector(".fate");
  const again = element("button", { type: "button" }, say("retry"));
  again.addEventListener("click", () => {
    line.classList.remove("failed");
    fate.textContent = say("sending");
    const room = [...rooms].find(([, { byClientId }]) => byClientId.get(clientId) === line)?.[0];
    if (room) link.retry(clientId, room, line.dataset.content);
  });
  fate.replaceChildren(say("failed"), reason, " ", again);
}

function scrollToNewest() {
  following = true;
  $("log").scrollTop = $("log").scrollHeight;
  $("newest").hidden = true;
}

// --- Small things ---

function element(tag, properties = {}, text = "") {
  const made = Object.assign(document.createElement(tag), properties);
  if (text) made.textContent = text;
  return made;
}

function recall(key) {
  try { return localStorage.getItem(`chatlab.${key}`); } catch { return null; }
}

function remember(key, value) {
  try { localStorage.setItem(`chatlab.${key}`, value); } catch { /* a private window keeps nothing */ }
}

function rememberRooms() {
  remember("rooms", JSON.stringify([...rooms.keys()]));
}

// The rooms of an earlier visit, checked: any page of this host can write to the storage.
function rememberedRooms() {
  try {
    const found = JSON.parse(recall("rooms"));
    return Array.isArray(found) ? found.filter((room) => typeof room === "string").map(spelled).filter((room) => !faultIn(room)) : [];
  } catch {
    return [];
  }
}

function notice(key, ...values) {
  $("room-fault").append(element("span", {}, say(key, ...values)), " ");
}

function join(name) {
  me = name;
  remember("name", name);
  $("join-fault").textContent = "";
  $("join").hidden = true;
  $("chat").hidden = false;
  const wanted = [...new Set([PUBLIC, ...rememberedRooms()])];
  wanted.slice(0, link.mostRooms).forEach(take);
  if (wanted.length > link.mostRooms) notice("too-many-rooms", link.mostRooms);
  rememberRooms();
  open(PUBLIC);
  link.connect(name);
  $("text").focus();
}

function rejected(reason) {
  $("chat").hidden = true;
  $("join").hidden = false;
  $("join-fault").textContent = say("rejected", reason);
  $("name").focus();
}

// --- What the visitor does ---

$("language").addEventListener("change", (event) => { language = event.target.value; remember("language", language); translate(); });
$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = visitor($("name").value);
  if (name) join(name);
});
$("add-room").addEventListener("submit", (event) => {
  event.preventDefault();
  const room = spelled($("room").value);
  $("room-fault").replaceChildren();
  const fault = faultIn(room);
  if (fault) {
    notice(fault);
    return;
  }
  $("room").value = "";
  enter(room);
  $("text").focus();
});
$("leave").addEventListener("click", () => leave(current));
$("newest").addEventListener("click", scrollToNewest);
$("log").addEventListener("scroll", () => {
  const log = $("log");
  following = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  if (following) $("newest").hidden = true;
});
// An on-screen keyboard, or opening the list of people, covers the end of the log.
new ResizeObserver(() => { if (following) scrollToNewest(); }).observe($("log"));
document.addEventListener("visibilitychange", () => { if (!document.hidden) document.title = TITLE; });
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = $("text").value.trim();
  if (!content) return;
  $("text").value = "";
  send(content);
});
// While a word is being composed, Enter belongs to the input method. Safari ends the composition before the keydown
// of that Enter: isComposing is false then, and keyCode is 229, as for every key that an input method processes
// (UI Events, "How to determine keyCode for keydown and keyup").
const isComposing = (event) => event.isComposing || event.keyCode === 229;
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !isComposing(event)) {
    event.preventDefault();
    $("say").requestSubmit();
  }
});

$("name").value = visitor(recall("name") ?? "");
if (matchMedia("(max-width: 45rem)").matches) $("people-box").open = false;
translate();
