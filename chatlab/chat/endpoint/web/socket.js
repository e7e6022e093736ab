// The connections to the server, one after another: a WebSocket, or SockJS where WebSocket is blocked; and their liveness.
//
// A connection that the network dropped silently stays "open" in the browser; only silence reveals it. The server sends
// something every 10 s, so this file watches for silence. In a hidden tab, browsers run timers once a minute, but
// messages still arrive at once, so work that has to be on time is done when a message arrives.

export const HEART_BEAT = 10000; // ms between two heart-beats of the server, and over SockJS of the page
const SILENCE = 20000; // ms without a message, after which the connection counts as lost
const CHECK = 5000; // ms between two checks for silence
const PATIENCE = 5000; // ms for the server to answer over HTTP
const ATTEMPTS_BEFORE_FALLBACK = 2;
const SUBPROTOCOLS = ["v12.stomp", "v11.stomp", "v10.stomp"];
const TRANSPORTS = ["xhr-streaming", "eventsource", "xhr-polling"];

// Relative to the page, wherever a proxy has put it: below /chat/ this is /chat/ws.
const address = () => new URL("ws", document.baseURI);

export class Sockets {
  // `lost()` is called when an open connection has been silent for too long.
  constructor(lost) {
    this.fallback = false;
    this.asking = false;
    this.lost = lost;
    this.failures = 0; // sockets that closed before they opened, in a row
    this.socket = null;
    this.receivedAt = 0;
    this.watch = null;
    this.answer = () => {};
  }

  // The heart-beat that the page offers the server, in ms. Over a WebSocket none: the browser itself answers the
  // server's pings, however slow the page's timers are. SockJS has no pings.
  get heartBeat() {
    return this.fallback ? HEART_BEAT : 0;
  }

  open() {
    const socket = this.fallback ? this.#sockJS() : this.#webSocket();
    let opened = false;
    socket.addEventListener("open", () => { opened = true; this.failures = 0; });
    socket.addEventListener("message", () => { if (socket === this.socket) this.#received(); });
    socket.addEventListener("close", () => { if (!opened) this.#failed(); });
    this.socket = socket;
    return socket;
  }

  // The server has begun to send heart-beats.
  watchOver() {
    this.release();
    const { socket } = this;
    let [checkedAt, excused, answeredAt] = [Date.now(), false, Date.now()];
    this.receivedAt = Date.now();
    this.answer = () => {
      excused = false;
      if (!this.heartBeat || Date.now() - answeredAt < HEART_BEAT / 4) return;
      answeredAt = Date.now();
      socket.send("\n"); // a heart-beat, now rather than when a timer may run
    };
    this.watch = setInterval(() => {
      const late = Date.now() - checkedAt > 2 * CHECK;
      checkedAt = Date.now();
      if (Date.now() - this.receivedAt <= SILENCE) return;
      // A page that was asleep runs this check before it receives what has arrived: check once more.
      if (late && !excused) excused = true;
      else this.lost();
    }, CHECK);
  }

  release() {
    clearInterval(this.watch);
    this.answer = () => {};
  }

  #received() {
    this.receivedAt = Date.now();
    this.answer();
  }

  #webSocket() {
    const url = address();
    url.protocol = url.protocol.replace("http", "ws");
    return new WebSocket(url, SUBPROTOCOLS);
  }

  #sockJS() {
    return new SockJS(address().href, null, { transports: TRANSPORTS });
  }

  // Await this before `open`. Idle HTTP connections that the network has dropped with the others would each cost a
  // request; of six at once, the most that a browser makes to one server, one gets a new connection.
  async prepare() {
    if (this.fallback) await answersOverHttp(6);
  }

  async #failed() {
    if (this.fallback) {
      this.fallback = false; // SockJS fails too: try a WebSocket next
      this.failures = 0;
    } else if (++this.failures >= ATTEMPTS_BEFORE_FALLBACK && !this.asking) {
      this.asking = true;
      this.fallback = await answersOverHttp(1);
      this.asking = false;
    }
  }
}

// No server at all is not a blocked WebSocket: only one that answers over HTTP is worth falling back to.
async function answersOverHttp(atOnce) {
  const rest = new AbortController();
  const timer = setTimeout(() => rest.abort(), PATIENCE);
  const ask = async () => {
    const answer = await fetch(`${address()}/info`, { cache: "no-store", signal: rest.signal });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
  };
  try {
    await Promise.any(Array.from({ length: atOnce }, ask));
    return true;
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
    rest.abort();
  }
}
