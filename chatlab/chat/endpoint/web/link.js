// The link to the server: STOMP over the connections of socket.js, reconnecting after every break.
//
// For each room it keeps the id of the last message seen, and sends it when it subscribes again (`last-id`), so that
// nothing is lost or repeated. A message without a RECEIPT yet is sent again with the same `client_id`; the server
// stores it once.
//
// The members of a room arrive as a list, then as numbered changes. When a change is missing, or the server reports that
// there were too many, the page subscribes again for the list.
//
// An ERROR ends the connection, and identifies the refused request by its receipt. The page does not repeat that request;
// otherwise the next connection would end the same way, even after a reload.

import { HEART_BEAT, Sockets } from "./socket.js";

const HISTORY = 50;
const PUBLIC = "public";
const MOST_ROOMS = 100; // two subscriptions each and two of our own: the server allows 256 (stomp/frames.py, Limits)
const OWN_SUBSCRIPTIONS = 2;
const TOO_MANY = /^too many subscriptions: at most (\d+) /; // as stomp/session.py says it
const RECORD_ID = /^\d{1,20}-\d{1,20}$/; // as brokers/names.py has it; an engine without history gives none

const CLIENT_KEY = "chat.client-key";
let unkept = null;
const ASK_AGAIN = 2; // seconds within which the list of people is asked for again, unless the server says how many

const CONNECT = 15000; // ms for a connection to be made and CONNECT to be answered
const HELD = 10000; // ms: a connection that lasted this long was a good one
const FIRST_PAUSE = 300; // ms before connecting again; each further pause is twice as long, up to:
const LONGEST_PAUSE = { lost: 10000, named: 5000, refused: 60000 };

export const destinationOf = (room) => (room === PUBLIC ? "/topic/public" : `/topic/room.${room}`);

export class Link {
  // `events`: state(name, {fallback, reason}), message(room, message, {id, gap, restarted}), people(room, list, count, {joined, left}),
  // stored(clientId), refused(clientId, reason), mentioned(note), roomRefused(room, reason), tooManyRooms(rooms, most),
  // nameRefused(reason)
  constructor(events) {
    this.events = events;
    this.rooms = new Map(); // name -> { lastId, restarted, subscriptions, watching, who, asking }
    this.mostRooms = MOST_ROOMS;
    this.unsent = new Map(); // client_id -> { room, content }, in the order they were written
    this.refusals = new Set(); // receipts of subscriptions that are not asked for again
    this.client = null;
    this.handle = null; // identifies this user to others
    this.sockets = new Sockets(() => this.client.forceDisconnect());
    this.connectedAt = null;
    this.breaks = 0; // in a row, without a connection that has held
    this.why = "lost"; // how the last connection ended: lost; named, by an ERROR that said what for; refused
    this.reason = ""; // in the server's words
    this.hurry = () => {}; // ends the pause
    addEventListener("online", () => { if (this.why === "lost") this.hurry(); });
  }

  connect(name) {
    Object.assign(this, { handle: null, breaks: 0, why: "lost" });
    this.refusals.clear();
    const client = this.client = new StompJs.Client({
      beforeConnect: async () => {
        await this.#pause();
        await this.sockets.prepare();
        client.heartbeatOutgoing = this.sockets.heartBeat;
        this.why = "lost";
      },
      webSocketFactory: () => this.sockets.open(),
      connectHeaders: { login: name, host: location.host, "client-key": clientKey() },
      connectionTimeout: CONNECT,
      heartbeatIncoming: HEART_BEAT,
      heartbeatToleranceMultiplier: Infinity, // socket.js watches
      discardWebsocketOnCommFailure: true, // a dead connection's closing handshake would take a minute
      reconnectDelay: 1, // the pauses are ours
      onConnect: (frame) => this.#connected(frame),
      onWebSocketClose: () => { if (client === this.client) this.#closed(); },
      onStompError: (frame) => this.#erred(frame),
    });
    this.events.state("connecting", {});
    client.activate();
  }

  enter(room) {
    if (this.rooms.has(room)) return;
    this.rooms.set(room, { lastId: null, restarted: true, subscriptions: [], watching: [], who: null, asking: null });
    if (this.client?.connected) this.#subscribe(room);
  }

  leave(room) {
    const { subscriptions = [], watching = [] } = this.rooms.get(room) ?? {};
    this.#forget(room);
    if (this.client?.connected) [...subscriptions, ...watching].forEach((subscription) => subscription.unsubscribe());
  }

  send(room, content) {
    const clientId = randomId();
    this.unsent.set(clientId, { room, content });
    if (this.client?.connected) this.#publish(clientId);
    return clientId;
  }

  retry(clientId, room, content) {
    this.unsent.set(clientId, { room, content });
    if (this.client?.connected) this.#publish(clientId);
  }

  // --- Connecting, and connecting again ---

  async #pause() {
    if (!this.breaks) return;
    const longest = Math.min(LONGEST_PAUSE[this.why], FIRST_PAUSE * 2 ** (this.breaks - 1));
    const pause = longest * (0.75 + Math.random() / 4); // not all pages at once
    await new Promise((resolve) => { this.hurry = resolve; setTimeout(resolve, pause); });
  }

  #connected(frame) {
    this.connectedAt = Date.now();
    this.handle = frame.headers["user-handle"];
    this.sockets.watchOver();
    this.events.state("online", { fallback: this.sockets.fallback });
    this.#ask("errors", "/user/queue/errors", (message) => this.#refused(message));
    this.#ask("mentions", "/user/queue/notifications", (message) => this.events.mentioned(JSON.parse(message.body)));
    for (const room of this.rooms.keys()) this.#subscribe(room);
    for (const clientId of this.unsent.keys()) this.#publish(clientId);
  }

  #closed() {
    this.sockets.release();
    // Only a connection that lasted was a good one: one that the server closes at once also connected.
    if (this.connectedAt !== null && Date.now() - this.connectedAt >= HELD) this.breaks = 0;
    this.connectedAt = null;
    this.breaks += 1;
    if (!this.client.active) this.events.state("closed", {});
    else if (this.why === "refused") this.events.state("refused", { reason: this.reason });
    else this.events.state("offline", {});
  }

  #erred({ headers }) {
    this.reason = headers.message ?? "";
    console.warn("ERROR from the server:", this.reason);
    this.why = this.#leaveOut(headers["receipt-id"] ?? "", this.reason) ? "named" : "refused";
    if (this.handle !== null || this.client.connected) return;
    this.client.deactivate(); // the name was refused on the first connection
    this.events.nameRefused(this.reason);
  }

  // --- What is asked of the server ---

  #ask(receipt, destination, hear, headers = {}) {
    if (this.refusals.has(receipt)) return [];
    // Our own ids rather than the library's: the same for every page, so that the server frames a message once.
    return [this.client.subscribe(destination, hear, { ...headers, id: receipt, receipt })];
  }

  #subscribe(room) {
    const state = this.rooms.get(room);
    const headers = state.lastId === null ? { history: String(HISTORY) } : { "last-id": state.lastId };
    state.restarted = state.lastId === null;
    state.subscriptions = this.#ask(`room ${room}`, destinationOf(room), (frame) => this.#message(room, frame), headers);
    this.#watch(room, state);
  }

  #watch(room, state) {
    clearTimeout(state.asking);
    Object.assign(state, { who: null, asking: null });
    state.watching = this.#ask(`who ${room}`, `/topic/who.${room}`, (frame) => this.#people(room, frame));
  }

  // At a random time, so that not all pages ask at once.
  #watchAgain(room, state, seconds = ASK_AGAIN) {
    state.asking ??= setTimeout(() => {
      state.asking = null;
      if (this.rooms.get(room) !== state || !this.client.connected) return;
      state.watching.forEach((subscription) => subscription.unsubscribe());
      this.#watch(room, state);
    }, seconds * 1000 * Math.random());
  }

  #publish(clientId) {
    const { room, content } = this.unsent.get(clientId);
    this.client.watchForReceipt(clientId, () => {
      if (this.unsent.delete(clientId)) this.events.stored(clientId);
    });
    this.client.publish({
      destination: "/app/chat.sendMessage",
      headers: { receipt: clientId, "content-type": "application/json" },
      body: JSON.stringify({ content, room, client_id: clientId }),
    });
  }

  // Give up the request that an ERROR names; return false if it names none that can be given up.
  #leaveOut(receipt, reason) {
    if (this.unsent.delete(receipt)) {
      this.events.refused(receipt, reason);
      return true;
    }
    if (!/^(room|who) .|^(errors|mentions)$/.test(receipt)) return false;
    if (this.#leaveTheLast(reason)) return true;
    const room = receipt.startsWith("room ") ? receipt.slice("room ".length) : null;
    const state = this.rooms.get(room);
    if (state && state.lastId !== null) {
      state.lastId = null; // perhaps the server refuses only the id
      return true;
    }
    this.refusals.add(receipt);
    if (!state) return true;
    if (room !== PUBLIC) this.#forget(room); // so that it may be entered again
    this.events.roomRefused(room, reason);
    return true;
  }

  // Leave as many rooms as the server's limit demands; return false if the ERROR is about something else.
  #leaveTheLast(reason) {
    const allowed = TOO_MANY.exec(reason)?.[1];
    if (allowed === undefined) return false;
    const most = Math.max(1, Math.floor((allowed - OWN_SUBSCRIPTIONS) / 2));
    const over = [...this.rooms.keys()].slice(most);
    if (!over.length) return false;
    this.mostRooms = most;
    over.forEach((room) => this.#forget(room));
    this.events.tooManyRooms(over, most);
    return true;
  }

  #forget(room) {
    clearTimeout(this.rooms.get(room)?.asking);
    this.rooms.delete(room);
    this.refusals.delete(`room ${room}`);
    this.refusals.delete(`who ${room}`);
  }

  // --- What the server says ---

  #message(room, frame) {
    const message = JSON.parse(frame.body);
    const state = this.rooms.get(room);
    if (!state) return;
    const { restarted } = state;
    state.restarted = false;
    // The server sets the header, ROOM/RECORD-ID. Anyone who can write to the broker controls the body.
    const id = frame.headers["message-id"].slice(frame.headers["message-id"].lastIndexOf("/") + 1);
    if (RECORD_ID.test(id)) state.lastId = id;
    if (message.client_id && this.unsent.delete(message.client_id)) this.events.stored(message.client_id);
    this.events.message(room, message, { id, restarted, gap: frame.headers.gap === "true" });
  }

  #people(room, frame) {
    const { version, count, people, joined = [], left = [], again } = JSON.parse(frame.body);
    const state = this.rooms.get(room);
    if (!state) return;
    if (people) state.who = { version, known: new Map(people.map((each) => [keyOf(each), each])), told: people.length };
    const { who } = state;
    if (!who) return; // the list is on its way
    if (!people && (version !== who.version + 1 || again !== undefined)) {
      state.who = null; // further changes mean nothing without the list
      this.#watchAgain(room, state, again);
    } else {
      who.version = version;
      left.forEach((each) => who.known.delete(keyOf(each)));
      joined.forEach((each) => who.known.set(keyOf(each), each));
      // The list has only the first members of a crowd: when half of them have left, others may be shown.
      if (who.known.size < Math.min(count, who.told / 2)) this.#watchAgain(room, state);
    }
    this.events.people(room, [...who.known.values()].sort(byName), count, { joined, left });
  }

  #refused(frame) {
    const { error, receipt } = JSON.parse(frame.body);
    if (receipt && this.unsent.delete(receipt)) this.events.refused(receipt, error);
  }
}

const keyOf = ({ handle, name }) => `${handle} ${name}`; // one user may have two windows, and a name in each
const byName = (one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : 0);

// A secret by which the server recognizes this page after a break or a reload, so that a message sent again is a repeat.
function clientKey() {
  let key = null;
  try {
    key = sessionStorage.getItem(CLIENT_KEY);
    if (key === null) sessionStorage.setItem(CLIENT_KEY, key = randomId() + randomId());
  } catch {
    // a browser that keeps nothing: the page is another guest after each reload
  }
  return key ?? (unkept ??= randomId() + randomId());
}

// crypto.randomUUID only exists on https and localhost; a phone in a classroom uses http.
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
