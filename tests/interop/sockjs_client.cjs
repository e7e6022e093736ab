// The public SockJS client under the public STOMP client, on one transport: says what it hears, a JSON value a line.
//   node sockjs_client.cjs URL TRANSPORT
const SockJS = require("sockjs-client");
const { Client } = require("@stomp/stompjs");

const [, , url, transport] = process.argv;
const say = (value) => console.log(JSON.stringify(value));

let socket;
const client = new Client({
  webSocketFactory: () => (socket = new SockJS(url, null, { transports: [transport] })),
  reconnectDelay: 0,
  heartbeatIncoming: 200,
  heartbeatOutgoing: 200,
  connectHeaders: { login: transport },
  onConnect: () => {
    say({ transport: socket.transport });
    client.subscribe("/topic/public", (message) => {
      say({ content: JSON.parse(message.body).content });
      if (message.body.includes("last")) client.deactivate();
    }, { receipt: "subscribed" });
    client.watchForReceipt("subscribed", () => {
      for (const content of ["안녕 🙂", "\u2028 and \u0000 and \ufffe", "x".repeat(40000), "last"]) {
        client.publish({ destination: "/app/chat.sendMessage", body: JSON.stringify({ content }) });
      }
    });
  },
  onStompError: (frame) => say({ error: frame.headers.message }),
  onDisconnect: () => say({ disconnected: true }),
  onWebSocketClose: (event) => say({ closed: event.code }),
});
client.activate();
