// The public STOMP client over the public SockJS client on one transport; prints what it receives, one JSON value per line.
//   node sockjs_client.cjs URL TRANSPORT
const SockJS = require("sockjs-client");
const { Client } = require("@stomp/stompjs");

const [, , url, transport] = process.argv;
const print = (value) => console.log(JSON.stringify(value));

let socket;
const client = new Client({
  webSocketFactory: () => (socket = new SockJS(url, null, { transports: [transport] })),
  reconnectDelay: 0,
  heartbeatIncoming: 200,
  heartbeatOutgoing: 200,
  connectHeaders: { login: transport },
  onConnect: () => {
    print({ transport: socket.transport });
    client.subscribe("/topic/public", (message) => {
      print({ content: JSON.parse(message.body).content });
      if (message.body.includes("last")) client.deactivate();
    }, { receipt: "subscribed" });
    client.watchForReceipt("subscribed", () => {
      for (const content of ["안녕 🙂", "\u2028 and \u0000 and \ufffe", "x".repeat(40000), "last"]) {
        client.publish({ destination: "/app/chat.sendMessage", body: JSON.stringify({ content }) });
      }
    });
  },
  onStompError: (frame) => print({ error: frame.headers.message }),
  onDisconnect: () => print({ disconnected: true }),
  onWebSocketClose: (event) => print({ closed: event.code }),
});
client.activate();
