// The page: it shows the events of the link, and passes the visitor's actions to it. User text is only ever set as
// `textContent`, so that markup in it stays text.

import { Link } from "./link.js";
import { faultIn, spelled, visitor } from "./names.js";
import { words } from "./words.js";

const PUBLIC = "public";
const TITLE = document.title;
const STATE_SYMBOLS = { online: "●", connecting: "◌", offline: "▲", refused: "▲", closed: "○" };
const MAX_SHOWN = 1000; // messages kept in a room's log
const MAX_ANNOUNCED = 3; // people named in an announcement of who came or left
const MAX_TAGS = 5000;
const HANDLE = /^[0-9a-f]{32}$/;
const ANNOUNCE_DELAY = 3000; // ms for which arrivals and departures are collected into one announcement

const $ = (id) => document.getElementById(id);
const rooms = new Map(); // name -> { lines, shownIds, unread, mentioned, people, count, byClientId }
const tags = new Map(); // the first digits of a handle -> the handle
const mentions = new Set(); // message ids: a notification may arrive before its message
let current = PUBLIC;
let language = navigator.language.startsWith("ko") ? "ko" : "en";
if (Object.keys(words).includes(loadSetting("language"))) language = loadSetting("language");
let ownName = "";
let state = ["closed", {}];
const announcement = { joined: new Map(), left: new Map(), timer: null }; // changes in the current room that are not announced yet
let atNewest = true; // the newest message is in view, and the log keeps scrolling to it

const link = new Link({
  state: (...newState) => { state = newState; showState(); },
  message: showMessage,
  people: updatePeople,
  stored: (clientId) => updateLine(clientId, (line) => line.classList.remove("sending", "failed")),
  refused: (clientId, reason) => updateLine(clientId, (line) => markFailed(line, clientId, reason)),
  mentioned: markMention,
  roomRefused: (room, reason) => { showNotice("barred", titleOf(room), reason); removeRooms([room]); },
  tooManyRooms: (removed, most) => { showNotice("too-many-rooms", most); removeRooms(removed); },
  nameRefused,
});

// --- Words ---

function localized(key, ...values) {
  const word = words[language][key];
  return typeof word === "function" ? word(...values) : word;
}

function translatePage() {
  document.documentElement.lang = language;
  $("language").value = language;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = localized(element.dataset.word);
  for (const element of document.querySelectorAll("[data-hint]")) element.placeholder = localized(element.dataset.hint);
  showState();
  showRooms();
  showRoom();
}

function showState() {
  const [name, { fallback, reason }] = state;
  $("state").dataset.state = name;
  $("state").querySelector(".sign").textContent = STATE_SYMBOLS[name];
  $("state-text").textContent = localized(name === "online" && fallback ? "online-fallback" : name, reason);
}

// --- Rooms ---

const titleOf = (room) => (room === PUBLIC ? localized("public") : room);

function enterRoom(room) {
  if (!rooms.has(room) && rooms.size >= link.mostRooms) {
    showNotice("too-many-rooms", link.mostRooms);
    return;
  }
  addRoom(room);
  storeRooms();
  selectRoom(room);
}

function addRoom(room) {
  if (rooms.has(room)) return;
  const empty = { lines: [], shownIds: new Set(), unread: 0, mentioned: false, people: [], count: 0, byClientId: new Map() };
  rooms.set(room, empty);
  link.enter(room);
}

function selectRoom(room) {
  current = room;
  clearAnnouncement();
  $("people-news").textContent = "";
  Object.assign(rooms.get(room), { unread: 0, mentioned: false });
  showRooms();
  showRoom();
  $("rooms").querySelector("[aria-current]").scrollIntoView({ block: "nearest", inline: "center" });
}

function leaveRoom(room) {
  if (room === PUBLIC) return;
  link.leave(room);
  removeRooms([room]);
}

// The public room stays even if the server refuses it: the page has to show something.
function removeRooms(names) {
  for (const name of names) if (name !== PUBLIC) rooms.delete(name);
  storeRooms();
  if (rooms.has(current)) showRooms();
  else selectRoom(PUBLIC);
}

function showRooms() {
  $("rooms").replaceChildren(...Array.from(rooms, ([name, { unread, mentioned }]) => {
    const button = element("button", { type: "button" }, titleOf(name));
    if (name === current) button.setAttribute("aria-current", "true");
    if (unread) button.append(" ", element("span", { className: "unread" }, localized("unread", unread)));
    if (mentioned) button.append(" ", element("span", { className: "called" }, localized("called")));
    button.addEventListener("click", () => selectRoom(name));
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

function updatePeople(room, people, count, { joined, left }) {
  Object.assign(rooms.get(room), { people, count });
  if (room !== current) return;
  showPeople();
  for (const each of joined) if (!announcement.left.delete(each.handle) && each.handle !== link.handle) announcement.joined.set(each.handle, each.name);
  for (const each of left) if (!announcement.joined.delete(each.handle)) announcement.left.set(each.handle, each.name);
  if (announcement.joined.size || announcement.left.size) announcement.timer ??= setTimeout(announce, ANNOUNCE_DELAY);
}

// The list shows who came and left; for screen readers it is announced too, no more often than they can follow.
function announce() {
  const named = (people) => [...people.values()].slice(0, MAX_ANNOUNCED);
  const { joined, left } = announcement;
  $("people-news").textContent = [
    ...(joined.size ? [localized("joined", named(joined), joined.size)] : []),
    ...(left.size ? [localized("left", named(left), left.size)] : []),
  ].join(" ");
  clearAnnouncement();
}

function clearAnnouncement() {
  clearTimeout(announcement.timer);
  Object.assign(announcement, { joined: new Map(), left: new Map(), timer: null });
}

function showPeople() {
  const { people, count } = rooms.get(current);
  $("people-count").textContent = `(${count})`;
  const items = people.map(({ name, handle }) => {
    const item = element("li", {}, name);
    item.append(" ", tag(handle));
    if (handle === link.handle) item.append(" ", element("span", { className: "you" }, `(${localized("you")})`));
    return item;
  });
  if (count > people.length) items.push(element("li", {}, localized("more", count - people.length)));
  $("people").replaceChildren(...items);
}

// --- Messages ---

function showMessage(room, message, { id, gap, restarted }) {
  const { byClientId, shownIds, lines } = rooms.get(room);
  const name = `${room}/${id}`;
  if (shownIds.has(name)) return; // a new history starts with messages that are already here
  const missed = restarted && lines.some((line) => line.dataset.id);
  const waiting = byClientId.get(message.client_id);
  if (waiting) {
    byClientId.delete(message.client_id);
    rooms.get(room).lines = rooms.get(room).lines.filter((line) => line !== waiting);
    waiting.remove();
  }
  if (gap || missed) insertLine(room, element("p", { className: "gap" }, localized("gap")));
  const line = createLine(message.sender, message.content, message.time, message.from);
  line.dataset.id = name;
  line.classList.toggle("mention", mentions.delete(name));
  shownIds.add(name);
  insertLine(room, line);
  if (document.hidden) document.title = `● ${TITLE}`;
  if (room !== current) {
    rooms.get(room).unread += 1;
    showRooms();
  }
}

function markMention({ room, message_id: id }) {
  if (!rooms.has(room)) return;
  const line = rooms.get(room).lines.find((each) => each.dataset.id === id);
  if (line) line.classList.add("mention");
  else mentions.add(id);
  if (room === current) return;
  rooms.get(room).mentioned = true;
  showRooms();
}

// Several guests may have the same name, or names that look alike, but handles are unique. The first digits of the handle
// distinguish them; more digits are shown if another handle with the same first digits has been seen.
function tag(handle) {
  let digits = 4;
  while (tags.has(handle.slice(0, digits)) && tags.get(handle.slice(0, digits)) !== handle) digits += 4;
  if (tags.size >= MAX_TAGS) tags.clear();
  tags.set(handle.slice(0, digits), handle);
  return element("span", { className: "tag" }, `#${handle.slice(0, digits)}`);
}

function createLine(sender, content, time, handle) {
  const line = element("article");
  const head = element("p", { className: "head" });
  head.append(element("span", { className: "sender" }, sender), " ");
  if (HANDLE.test(handle)) head.append(tag(handle), " ");
  if (time) {
    const date = new Date(time);
    const today = date.toDateString() === new Date().toDateString();
    const formatted = date.toLocaleString(language, today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
    head.append(element("time", { dateTime: time }, formatted));
  }
  line.append(head, element("p", { className: "content" }, content));
  return line;
}

function insertLine(room, line) {
  const { lines, shownIds } = rooms.get(room);
  // Messages still being sent stay below those that have arrived.
  const place = line.classList.contains("sending") ? -1 : lines.findIndex((each) => each.classList.contains("sending"));
  if (place < 0) lines.push(line);
  else lines.splice(place, 0, line);
  const removed = lines.length > MAX_SHOWN ? lines.shift() : null;
  shownIds.delete(removed?.dataset.id);
  if (room !== current) return;
  removed?.remove();
  $("log").insertBefore(line, lines[lines.indexOf(line) + 1] ?? null);
  if (atNewest) scrollToNewest();
  else $("newest").hidden = false;
}

function send(content) {
  const clientId = link.send(current, content);
  const line = createLine(ownName, content, "");
  line.classList.add("sending");
  line.dataset.content = content;
  line.firstChild.append(element("span", { className: "fate" }, localized("sending")));
  rooms.get(current).byClientId.set(clientId, line);
  insertLine(current, line);
  scrollToNewest();
}

function updateLine(clientId, change) {
  for (const { byClientId } of rooms.values()) {
    const line = byClientId.get(clientId);
    if (line) change(line);
  }
}

function markFailed(line, clientId, reason) {
  line.classList.add("failed");
  const status = line.querySelector(".fate");
  const retry = element("button", { type: "button" }, localized("retry"));
  retry.addEventListener("click", () => {
    line.classList.remove("failed");
    status.textContent = localized("sending");
    const room = [...rooms].find(([, { byClientId }]) => byClientId.get(clientId) === line)?.[0];
    if (room) link.retry(clientId, room, line.dataset.content);
  });
  status.replaceChildren(localized("failed"), reason, " ", retry);
}

function scrollToNewest() {
  atNewest = true;
  $("log").scrollTop = $("log").scrollHeight;
  $("newest").hidden = true;
}

// --- Helpers ---

function element(tag, properties = {}, text = "") {
  const created = Object.assign(document.createElement(tag), properties);
  if (text) created.textContent = text;
  return created;
}

function loadSetting(key) {
  try { return localStorage.getItem(`chatlab.${key}`); } catch { return null; }
}

function storeSetting(key, value) {
  try { localStorage.setItem(`chatlab.${key}`, value); } catch { /* a private window keeps nothing */ }
}

function storeRooms() {
  storeSetting("rooms", JSON.stringify([...rooms.keys()]));
}

// The rooms of an earlier visit, checked: any page of this host can write to the storage.
function storedRooms() {
  try {
    const parsed = JSON.parse(loadSetting("rooms"));
    return Array.isArray(parsed) ? parsed.filter((room) => typeof room === "string").map(spelled).filter((room) => !faultIn(room)) : [];
  } catch {
    return [];
  }
}

function showNotice(key, ...values) {
  $("room-fault").append(element("span", {}, localized(key, ...values)), " ");
}

function join(name) {
  ownName = name;
  storeSetting("name", name);
  $("join-fault").textContent = "";
  $("join").hidden = true;
  $("chat").hidden = false;
  const enteredRooms = [...new Set([PUBLIC, ...storedRooms()])];
  enteredRooms.slice(0, link.mostRooms).forEach(addRoom);
  if (enteredRooms.length > link.mostRooms) showNotice("too-many-rooms", link.mostRooms);
  storeRooms();
  selectRoom(PUBLIC);
  link.connect(name);
  $("text").focus();
}

function nameRefused(reason) {
  $("chat").hidden = true;
  $("join").hidden = false;
  $("join-fault").textContent = localized("rejected", reason);
  $("name").focus();
}

// --- The visitor's actions ---

$("language").addEventListener("change", (event) => { language = event.target.value; storeSetting("language", language); translatePage(); });
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
    showNotice(fault);
    return;
  }
  $("room").value = "";
  enterRoom(room);
  $("text").focus();
});
$("leave").addEventListener("click", () => leaveRoom(current));
$("newest").addEventListener("click", scrollToNewest);
$("log").addEventListener("scroll", () => {
  const log = $("log");
  atNewest = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  if (atNewest) $("newest").hidden = true;
});
// An on-screen keyboard, or opening the list of people, covers the end of the log.
new ResizeObserver(() => { if (atNewest) scrollToNewest(); }).observe($("log"));
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

$("name").value = visitor(loadSetting("name") ?? "");
if (matchMedia("(max-width: 45rem)").matches) $("people-box").open = false;
translatePage();
