// node stomp_clients.cjs LIBRARY SCENARIO URL: run one scenario of a public STOMP client with the server at URL.
// Prints what happened, one JSON value per line. Each library is wrapped in the few methods that the scenarios need.
'use strict';
const WebSocket = require('ws');
global.WebSocket = WebSocket;
const print = (value) => console.log(JSON.stringify(value));
const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Values to wait for, by name; a value may arrive before the wait.
class Mailbox {
  constructor() { this.boxes = new Map(); }
  box(name) {
    if (!this.boxes.has(name)) { const box = {}; box.promise = new Promise((resolve) => { box.resolve = resolve; }); this.boxes.set(name, box); }
    return this.boxes.get(name);
  }
  put(name, value) { this.box(name).resolve(value); }
  wait(name) { return this.box(name).promise; }
}

// @stomp/stompjs 7
function stompjs7(url, { beat }) {
  const { Client } = require('@stomp/stompjs');
  const mail = new Mailbox();
  const client = new Client({
    brokerURL: url, heartbeatIncoming: beat, heartbeatOutgoing: beat, reconnectDelay: 100,
    connectHeaders: { login: 'Ana' },
    onConnect: (frame) => { mail.put('connected', frame); api.onConnect(frame); },
    onStompError: (frame) => mail.put('error', frame.headers),
    onWebSocketClose: (event) => mail.put('closed', event.code),
    debug: (text) => api.onDebug(text),
  });
  const api = {
    onConnect: () => {}, onDebug: () => {},
    open: async () => { client.activate(); return (await mail.wait('connected')).headers; },
    version: () => client.connectedVersion,
    subscribe: (destination, headers, onMessage) => client.subscribe(destination, onMessage, headers),
    send: (destination, headers, body) => client.publish({ destination, headers, body }),
    receipt: (name) => new Promise((resolve) => client.watchForReceipt(name, resolve)),
    error: () => { client.reconnectDelay = 0; return mail.wait('error'); },
    disconnect: () => client.deactivate(),
    closed: () => mail.wait('closed'),
  };
  return api;
}

// stompjs 2.3 and webstomp-client have a common ancestor, and nearly the same API
function stompjs2Family(over, protocols) {
  return (url, { beat }) => {
    const mail = new Mailbox();
    const socket = new WebSocket(url, protocols);
    const client = over(socket);
    client.heartbeat = { outgoing: beat, incoming: beat };
    client.debug = (text) => api.onDebug(text);
    client.onreceipt = (frame) => mail.put(frame.headers['receipt-id'], true);
    socket.addEventListener('close', (event) => mail.put('closed', event.code));
    const api = {
      onDebug: () => {},
      open: () => new Promise((resolve, reject) => client.connect({ login: 'Ana' }, (frame) => { api.frame = frame; resolve(frame.headers); },
        (failure) => (failure.command === 'ERROR' ? mail.put('error', failure.headers) : reject(new Error(String(failure)))))),
      version: () => api.frame.headers.version,
      subscribe: (destination, headers, onMessage) => client.subscribe(destination, onMessage, headers),
      send: (destination, headers, body) => (protocols.length === 3 ? client.send(destination, body, headers) : client.send(destination, headers, body)),
      receipt: (name) => mail.wait(name),
      error: () => mail.wait('error'),
      disconnect: () => client.disconnect(() => {}, { receipt: 'bye' }),
      closed: () => mail.wait('closed'),
    };
    return api;
  };
}

const webstomp = (socket) => require('webstomp-client').over(socket);
const libraries = {
  'stompjs7': stompjs7,
  'stompjs2': stompjs2Family((socket) => require('stompjs').over(socket), ['v10.stomp', 'v11.stomp']),
  // webstomp-client requests the version of the negotiated subprotocol; these are the ones it offers, in its order.
  'webstomp': stompjs2Family(webstomp, ['v10.stomp', 'v11.stomp', 'v12.stomp']),
  'webstomp12': stompjs2Family(webstomp, ['v12.stomp', 'v11.stomp', 'v10.stomp']),
};

const scenarios = {
  async talk(client) {
    const headers = await client.open();
    print({ version: client.version(), user: headers['user-name'] !== undefined });
    const message = new Promise((resolve) => client.subscribe('/topic/public', { receipt: 'subscribed' }, resolve));
    await client.receipt('subscribed');
    client.send('/app/chat.sendMessage', { receipt: 'stored', 'content-type': 'application/json' }, JSON.stringify({ content: '안녕 🙂: a\\b' }));
    await client.receipt('stored');
    const { body, headers: received } = await message;
    print({ content: JSON.parse(body).content, destination: received.destination, 'message-id': received['message-id'] !== undefined });
    client.disconnect();
    print({ closed: await client.closed() });
  },

  async headers(client) {
    await client.open();
    const message = new Promise((resolve) => client.subscribe('/topic/news', { receipt: 'subscribed' }, resolve));
    await client.receipt('subscribed');
    client.send('/topic/news', { mine: 'a:b\\d', receipt: 'sent' }, 'x');
    await client.receipt('sent');
    const { headers, body } = await message;
    print({ mine: headers.mine, body });
    client.disconnect();
    print({ closed: await client.closed() });
  },

  async acks(client, queue) {
    await client.open();
    const done = new Promise((resolve) => {
      client.subscribe(queue, { ack: 'client-individual', receipt: 'subscribed' }, (message) => {
        print({ body: message.body, redelivered: message.headers.redelivered === 'true' });
        if (message.body === '1') { message.ack(); client.send(queue, {}, '2'); return; }
        if (message.headers.redelivered !== 'true') { message.nack(); return; }
        message.ack();
        resolve();
      });
    });
    await client.receipt('subscribed');
    client.send(queue, {}, '1');
    await done;
    client.disconnect();
    print({ closed: await client.closed() });
  },

  async error(client) {
    await client.open();
    client.subscribe('/topic/public', { selector: 'a = 1', receipt: 'never' }, () => {});
    const headers = await client.error();
    print({ message: headers.message, 'receipt-id': headers['receipt-id'] });
    print({ closed: await client.closed() });
  },

  async beats(client) {
    let beats = 0;
    client.onDebug = (text) => { if (/PONG/.test(text)) beats += 1; };
    await client.open();
    await delay(1500);
    client.send('/app/chat.sendMessage', { receipt: 'still here' }, '{"content":"x"}');
    await client.receipt('still here');
    print({ beats: beats > 2 });
    client.disconnect();
    await client.closed();
  },

  async reconnect(client) {
    let times = 0;
    const content = new Promise((resolve) => {
      client.onConnect = () => {
        times += 1;
        client.subscribe('/topic/public', { receipt: `subscribed ${times}` }, (message) => resolve(JSON.parse(message.body).content));
        client.receipt(`subscribed ${times}`).then(() => {
          print({ connected: times });
          if (times === 2) client.send('/app/chat.sendMessage', {}, '{"content":"back"}');
        });
      };
    });
    await client.open();
    print({ content: await content });
    client.disconnect();
  },
};

const [library, scenario, url, ...rest] = process.argv.slice(2);
const client = libraries[library](url, { beat: scenario === 'beats' ? 200 : 0 });
scenarios[scenario](client, ...rest).then(() => process.exit(0), (failure) => { console.error(failure); process.exit(1); });
