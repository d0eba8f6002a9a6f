import { connect } from "@sealpost/client";

const url = "ws://127.0.0.1:8080/ws";
const [alice, bob] = [connect(url), connect(url)];
bob.onMessage(async (message) => console.log(`${message.from} says: ${message.data}`));
bob.on("registered", async ({ deviceId }) => {
  const sent = alice.send(deviceId, "seal this before you send it", { ttl: 300 });
  console.log("the relay says:", await sent.processed);
  await Promise.all([alice.close(), bob.close()]);
});
