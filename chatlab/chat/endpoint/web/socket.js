// One connection to the server after another: a WebSocket, or SockJS where WebSocket is blocked. And whether it lives.
//
// A connection that the network has dropped without a word stays "open" in the browser; only silence shows it. The
// server says something every 10 s, so it is watched from here. In a tab out of sight, browsers run timers once a
// minute; what the server sends still arrives at once, so whatever has to be on time is done when something arrives.

export const HEART_BEAT = 10000; // ms between two signs of life from the server, and over SockJS from the page
const SILENCE = 20000; // ms without a sign of life, after which the connection counts as lost
const LOOK = 5000; // ms between two looks at that
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
    this.heardAt = 0;
    this.watch = null;
    this.answer = () => {};
  }

  // What the page promises the server, in ms. Over a WebSocket nothing: the server's pings are answered by the browser
  // itself, however slow the page's timers are. Over SockJS there are no pings.
  get heartBeat() {
    return this.fallback ? HEART_BEAT : 0;
  }

  open() {
    const socket = this.fallback ? this.#sockJS() : this.#webSocket();
    let opened = false;
    socket.addEventListener("open", () => { opened = true; this.failures = 0; });
    socket.addEventListener("message", () => { if (socket === this.socket) this.#heard(); });
    socket.addEventListener("close", () => { if (!opened) this.#failed(); });
    this.socket = socket;
    return socket;
  }

  // The server has begun to send heart-beats.
  watchOver() {
    this.release();
    const { socket } = this;
    let [lookedAt, spared, answeredAt] = [Date.now(), false, Date.now()];
    this.heardAt = Date.now();
    this.answer = () => {
      spared = false;
      if (!this.heartBeat || Date.now() - answeredAt < HEART_BEAT / 4) return;
      answeredAt = Date.now();
      socket.send("\n"); // a heart-beat, now rather than when a timer may run
    };
    this.watch = setInterval(() => {
      const late = Date.now() - lookedAt > 2 * LOOK;
      lookedAt = Date.now();
      if (Date.now() - this.heardAt <= SILENCE) return;
      // A page that has slept looks before it hears what arrived meanwhile: it looks once more.
      if (late && !spared) spared = true;
      else this.lost();
    }, LOOK);
  }

  release() {
    clearInterval(this.watch);
    this.answer = () => {};
  }

  #heard() {
    this.heardAt = Date.now();
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

  // To be awaited before `open`. Idle HTTP connections that the network has dropped with the others would each cost a
  // request; of six at once, the most that a browser makes to one server, one gets a new connection.
  async prepare() {
    if (this.fallback) await answersOverHttp(6);
  }

  async #failed() {
    if (this.fallback) {
      this.fallback = false; // nor does that get through: a WebSocket may, the next time
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
