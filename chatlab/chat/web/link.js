// The link to the server: STOMP over WebSocket, or over SockJS where WebSocket is blocked; back after every break.
//
// For each room it keeps the id of the last message seen, and names it when it subscribes again (`last-id`), so that
// nothing is missed and nothing comes twice. What was written and has no RECEIPT yet is sent again under the same
// `client_id`, which the server stores once.

const HISTORY = 50;
const PUBLIC = "public";
const ATTEMPTS_BEFORE_FALLBACK = 2;

export const destinationOf = (room) => (room === PUBLIC ? "/topic/public" : `/topic/room.${room}`);

export class Link {
  // `events`: state(name, {fallback}), message(room, message, {gap}), people(room, list, count), stored(clientId),
  // refused(clientId, reason), mentioned(note)
  constructor(events) {
    this.events = events;
    this.rooms = new Map(); // name -> { lastId, subscriptions }
    this.unsent = new Map(); // client_id -> { room, content }, in the order they were written
    this.client = null;
    this.principal = null;
    this.failures = 0; // sockets that closed before they opened, in a row
    this.fallback = false;
  }

  connect(name) {
    this.client = new StompJs.Client({
      webSocketFactory: () => this.#socket(),
      connectHeaders: { login: name, host: location.host },
      heartbeatIncoming: 10000,
      heartbeatOutgoing: 10000,
      reconnectDelay: 300,
      maxReconnectDelay: 10000,
      reconnectTimeMode: StompJs.ReconnectionTimeMode.EXPONENTIAL,
      onConnect: (frame) => this.#connected(frame),
      onWebSocketClose: () => this.events.state(this.client.active ? "offline" : "closed", {}),
      onStompError: (frame) => console.warn("ERROR from the server:", frame.headers.message),
    });
    this.events.state("connecting", {});
    this.client.activate();
  }

  enter(room) {
    if (this.rooms.has(room)) return;
    this.rooms.set(room, { lastId: null, subscriptions: [] });
    if (this.client?.connected) this.#subscribe(room);
  }

  leave(room) {
    const { subscriptions = [] } = this.rooms.get(room) ?? {};
    this.rooms.delete(room);
    if (this.client?.connected) subscriptions.forEach((subscription) => subscription.unsubscribe());
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

  #socket() {
    if (this.fallback) return new SockJS("/ws", null, { transports: ["xhr-streaming", "eventsource", "xhr-polling"] });
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws`, ["v12.stomp", "v11.stomp", "v10.stomp"]);
    let opened = false;
    socket.addEventListener("open", () => { opened = true; this.failures = 0; });
    socket.addEventListener("close", () => {
      if (!opened && ++this.failures >= ATTEMPTS_BEFORE_FALLBACK) this.#tryFallback();
    });
    return socket;
  }

  async #tryFallback() {
    // No server at all is not a blocked WebSocket: only one that answers over HTTP is worth falling back to.
    try {
      this.fallback = (await fetch("/ws/info", { cache: "no-store" })).ok;
    } catch {
      this.fallback = false;
    }
  }

  #connected(frame) {
    this.principal = frame.headers["user-name"];
    this.events.state("online", { fallback: this.fallback });
    this.client.subscribe("/user/queue/errors", (message) => this.#refused(message));
    this.client.subscribe("/user/queue/notifications", (message) => this.events.mentioned(JSON.parse(message.body)));
    for (const room of this.rooms.keys()) this.#subscribe(room);
    for (const clientId of this.unsent.keys()) this.#publish(clientId);
  }

  #subscribe(room) {
    const state = this.rooms.get(room);
    const headers = state.lastId === null ? { history: String(HISTORY) } : { "last-id": state.lastId };
    // Names of our own rather than the library's: the same for everybody, so that the server frames a message once.
    state.subscriptions = [
      this.client.subscribe(destinationOf(room), (frame) => this.#message(room, frame), { ...headers, id: `room ${room}` }),
      this.client.subscribe(`/topic/who.${room}`, (frame) => this.#people(room, frame), { id: `who ${room}` }),
    ];
  }

  #message(room, frame) {
    const message = JSON.parse(frame.body);
    const state = this.rooms.get(room);
    if (!state) return;
    state.lastId = message.id;
    if (message.client_id && this.unsent.delete(message.client_id)) this.events.stored(message.client_id);
    this.events.message(room, message, { gap: frame.headers.gap === "true" });
  }

  #people(room, frame) {
    const { people, count } = JSON.parse(frame.body);
    if (this.rooms.has(room)) this.events.people(room, people, count);
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

  #refused(frame) {
    const { error, receipt } = JSON.parse(frame.body);
    if (receipt && this.unsent.delete(receipt)) this.events.refused(receipt, error);
  }
}

// crypto.randomUUID exists on https and localhost alone; a phone in a classroom comes by http.
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
