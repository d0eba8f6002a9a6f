"""A device for scripts, with what Python brings along: connects over plain TCP or TLS, registers, sends, receives.

    device = Device("ws://127.0.0.1:8080/ws", {"resumable": True})
    connection = Device("ws://127.0.0.1:8080/ws", None)  # does not register
    device = Device("wss://relay.example/ws", {}, ca="ca.pem", bearer="an access token", at=("127.0.0.1", 8443))
"""

import base64
import json
import os
import socket
import ssl
import struct
import urllib.parse


class Refused(Exception):
    """The relay has answered, and not with a WebSocket or the expected frame."""


class Device:
    def __init__(self, url, register, ca=None, bearer=None, at=None, source=None, headers=()):
        parts = urllib.parse.urlsplit(url)
        secure = parts.scheme == "wss"
        address = at or (parts.hostname, parts.port or (443 if secure else 80))
        source = (source, 0) if source else None
        self.socket = socket.create_connection(address, timeout=20, source_address=source)
        if secure:
            context = ssl.create_default_context(cafile=ca)
            self.socket = context.wrap_socket(self.socket, server_hostname=parts.hostname)
        self.buffer = b""
        head = [
            f"GET {parts.path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *headers,
        ]
        if bearer:
            head.append(f"Authorization: Bearer {bearer}")
        self.socket.sendall("\r\n".join([*head, "", ""]).encode())
        while b"\r\n\r\n" not in self.buffer:
            self._read()
        answer, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in answer.split(b"\r\n")[0]:
            raise Refused(answer.decode(errors="replace"))
        if register is None:
            return
        self.send({"type": "Register", "payload": register})
        self.registration = self.receive("RegisterResponse")
        self.id = self.registration["device_id"]

    def _read(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the connection is closed")
        self.buffer += data

    def _take(self, length):
        while len(self.buffer) < length:
            self._read()
        taken, self.buffer = self.buffer[:length], self.buffer[length:]
        return taken

    def _frame(self, opcode, payload):
        mask = os.urandom(4)
        length = len(payload)
        head = bytes([0x80 | opcode])
        head += bytes([0x80 | length]) if length < 126 else struct.pack("!BH", 0xFE, length)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.socket.sendall(head + mask + masked)

    def send(self, frame):
        self._frame(1, json.dumps(frame).encode())

    def receive(self, kind):
        """The payload of the next frame, which must have this type."""
        while True:
            first, length = self._take(2)
            if length == 126:
                (length,) = struct.unpack("!H", self._take(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self._take(8))
            payload = self._take(length)
            opcode = first & 0x0F
            if opcode == 9:
                self._frame(10, payload)
            elif opcode == 8:
                raise ConnectionError(f"closed by the relay: {payload[2:].decode(errors='replace')}")
            elif opcode == 1:
                frame = json.loads(payload)
                if frame["type"] != kind:
                    raise Refused(f"{kind} was expected: {frame}")
                return frame.get("payload")

    def send_message(self, recipient, number):
        """Sends a message and waits for its Ack."""
        message = {
            "recipient_id": recipient,
            "sender_id": self.id,
            "message_id": f"{number:08x}-0000-4000-8000-000000000001",
            "encrypted_data": "c2VhbGVk",
            "ttl": 3600,
        }
        self.send({"type": "Send", "payload": message})
        self.receive("Ack")

    def close(self):
        self._frame(8, struct.pack("!H", 1000))
        self.socket.close()
