// Scenarios with @stomp/stompjs in a page, over a WebSocket or one transport of sockjs-client.
// Each uses a different login, so that the server side can tell them apart, and returns what happened.
'use strict';

const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function open(url, transport, login, options = {}) {
  const client = new StompJs.Client({ connectHeaders: { login }, reconnectDelay: 0, heartbeatIncoming: 600, heartbeatOutgoing: 600, ...options });
  if (transport === 'plain') client.brokerURL = url.replace('http:', 'ws:');
  else client.webSocketFactory = () => (client.sockjs = new SockJS(url, null, { transports: [transport] }));
  client.receipt = (name) => new Promise((resolve) => client.watchForReceipt(name, resolve));
  client.confirmed = (destination, onMessage, headers = {}) => {
    client.subscribe(destination, onMessage, { ...headers, receipt: 'subscribed' });
    return client.receipt('subscribed');
  };
  client.connecting = new Promise((resolve) => { client.onConnect = resolve; });
  client.activate();
  return client;
}

const scenarios = {
  async talk(url, transport) {
    const client = open(url, transport, 'talk');
    const { headers } = await client.connecting;
    const used = client.sockjs ? client.sockjs.transport : 'plain';
    const contents = ['안녕 🙂', '\u2028 and \u0000 and \ufffe', 'x'.repeat(40000), 'last'];
    const received = [];
    await new Promise((resolve) => {
      const onMessage = (message) => { received.push(JSON.parse(message.body).content); if (received.length === contents.length) resolve(); };
      client.confirmed('/topic/room.talk', onMessage).then(() => {
        for (const content of contents) client.publish({ destination: '/app/chat.sendMessage', body: JSON.stringify({ room: 'talk', content }) });
      });
    });
    const left = new Promise((resolve) => { client.onDisconnect = (frame) => resolve(frame.command); });
    await client.deactivate();
    return {
      version: headers.version, transport: used, left: await left,
      all_received: contents.every((content, number) => received[number] === content),
    };
  },

  async acks(url, transport) {
    const modes = {};
    for (const mode of ['auto', 'client', 'client-individual']) {
      const client = open(url, transport, 'acks');
      await client.connecting;
      const queue = `/queue/${transport}.${mode}`, received = [];
      await new Promise((resolve) => {
        client.confirmed(queue, (message) => {
          const again = message.headers.redelivered === 'true';
          received.push(message.body + (again ? ' again' : ''));
          if (mode === 'auto' ? message.body === '2' : again) resolve();
          if (mode !== 'auto') (message.body === '2' && !again ? message.nack : message.ack)();
        }, { ack: mode }).then(() => ['1', '2'].forEach((body) => client.publish({ destination: queue, body })));
      });
      modes[mode] = received;
      await client.deactivate();
    }
    return modes;
  },

  async error(url, transport) {
    const client = open(url, transport, 'error');
    await client.connecting;
    const error = new Promise((resolve) => { client.onStompError = (frame) => resolve(frame.headers); });
    const closed = new Promise((resolve) => { client.onWebSocketClose = (event) => resolve(event.code); });
    client.subscribe('/topic/public', () => {}, { selector: 'a = 1', receipt: 'never' });
    const headers = await error;
    return { message: headers.message, receipt: headers['receipt-id'], code: await closed };
  },

  async beats(url, transport) {
    let beats = 0;
    const client = open(url, transport, 'beats', { debug: (text) => { if (text.includes('Received data')) beats += 1; } });
    await client.connecting;
    await delay(2000); // by now a silent client would have been closed by the server, and a silent server by the client
    const receipt = client.receipt('still here');
    client.publish({ destination: '/topic/news', headers: { receipt: 'still here' } });
    await receipt;
    await client.deactivate();
    return { beats: beats > 2 };
  },

  async reconnect(url, transport) {
    const client = open(url, transport, 'reconnect', { reconnectDelay: 100 });
    const received = await new Promise((resolve) => {
      let times = 0;
      client.onConnect = async () => {
        times += 1;
        await client.confirmed('/topic/room.reconnect', (message) => resolve(`${JSON.parse(message.body).content} ${times}`));
        if (times > 1) client.publish({ destination: '/app/chat.sendMessage', body: '{"room":"reconnect","content":"back"}' });
      };
    });
    await client.deactivate();
    return received;
  },
};

async function runScenarios(url, transport) {
  const names = Object.keys(scenarios);
  const results = await Promise.all(names.map((name) => scenarios[name](url, transport)));
  return Object.fromEntries(names.map((name, number) => [name, results[number]]));
}
