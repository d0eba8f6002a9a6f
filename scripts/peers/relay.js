// A minimal relay on Node and ws, for scripts/compare: it looks the recipient up, forwards and acks. Nothing else: no
// limits, no checks, no queue, no ttl. Says on which port it listens; SIGTERM ends it.
'use strict';

const { randomUUID } = require('node:crypto');
const { WebSocketServer } = require('ws');

const devices = new Map();
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, path: '/ws', perMessageDeflate: false });

server.on('listening', () => console.log(`is listening on 127.0.0.1:${server.address().port}`));

server.on('connection', (socket) => {
  let id = null;
  const say = (type, payload) => socket.send(JSON.stringify({ type, payload }));

  socket.on('message', (text) => {
    const { type, payload } = JSON.parse(text);
    if (type === 'Send') {
      const { message_id, recipient_id } = payload;
      const recipient = devices.get(recipient_id);
      if (recipient) {
        recipient.send(JSON.stringify({ type: 'Receive', payload }));
        say('Ack', { message_id });
      } else {
        say('Error', { message: 'Unknown recipient.', code: 404, message_id });
      }
    } else if (type === 'Register') {
      id = randomUUID();
      devices.set(id, socket);
      say('RegisterResponse', { device_id: id });
    }
  });
  socket.on('close', () => devices.delete(id));
  socket.on('error', () => socket.terminate());
});
