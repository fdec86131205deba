// A UDP client that stays in a network namespace: for each line of JSON on standard input it sends
// numbered datagrams to a guest's echo service and answers with a line of JSON what came back. Run
// by src/matrix/peer-process.ts, there because a program is in the namespace it was started in.
//
//   in   {"id":1,"address":"198.18.0.2","flows":8,"bytes":[18,...],"basePort":20000,
//        "timeoutMs":10000,"window":4}
//   out  {"id":1,"sent":56,"right":56,"wrong":""}
import { createSocket } from "node:dgram";
import { createInterface } from "node:readline";

const ECHO_PORT = 7;

/** Bytes that depend on the flow, the datagram and the place in it. */
function payloadOf(flow, number, length) {
  const payload = Buffer.alloc(length);
  let state = (flow * 0x9e3779b1 + number * 0x85ebca6b + 1) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    payload[i] = state >>> 24;
  }
  return payload;
}

/** One datagram after the other, each when the last one has come back unchanged. */
function flow(index, { address, bytes, basePort, timeoutMs }) {
  return new Promise((resolve) => {
    const socket = createSocket("udp4");
    let number = 0;
    let wanted = Buffer.alloc(0);
    const finish = (wrong) => {
      clearTimeout(timer);
      socket.close();
      resolve({ sent: Math.min(number + 1, bytes.length), right: number, wrong });
    };
    const late = () => {
      const what = `datagram ${number} (${bytes[number]} bytes) of flow ${index}`;
      finish(`${what} has not come back within ${timeoutMs} ms`);
    };
    const timer = setTimeout(late, timeoutMs);
    const send = () => {
      wanted = payloadOf(index, number, bytes[number]);
      socket.send(wanted, ECHO_PORT, address, (error) => {
        if (error) finish(error.message);
      });
    };
    socket.on("error", (error) => finish(error.message));
    socket.on("message", (message, { address: from, port }) => {
      if (from !== address || port !== ECHO_PORT) return finish(`an answer from ${from}:${port}`);
      if (!message.equals(wanted)) return finish(`datagram ${number} of flow ${index} has changed`);
      number++;
      if (number === bytes.length) finish("");
      else send();
    });
    socket.bind(basePort + index, send);
  });
}

async function exchange(request) {
  const { flows, bytes, window } = request;
  // While the kernel asks for the MAC it keeps few datagrams waiting, and drops the others.
  const first = await flow(0, { ...request, bytes: bytes.slice(0, 1) });
  if (first.wrong !== "") return first;
  const all = [first];
  let next = 0;
  const runner = async () => {
    while (next < flows) all.push(await flow(next++, request));
  };
  await Promise.all(Array.from({ length: Math.min(window, flows) }, runner));
  const sum = (field) => all.reduce((total, result) => total + result[field], 0);
  const wrong = all.find((result) => result.wrong !== "")?.wrong ?? "";
  return { sent: sum("sent"), right: sum("right"), wrong };
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  void exchange(request).then((result) => {
    console.log(JSON.stringify({ id: request.id, ...result }));
  });
}
process.exit(0);
